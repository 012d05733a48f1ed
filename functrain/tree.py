"""Trees of tensors: nested dicts, lists, tuples and frozen records, mapped, compared and addressed by dotted path.

This is the only module that knows the pytree library (`torch.utils._pytree`, because `torch.func` speaks it too).

>>> import torch
>>> params = {"0": {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}}
>>> paths(params)
['0.weight', '0.bias']
>>> map(lambda p: p.shape[0], params)
{'0': {'weight': 2, 'bias': 2}}
"""

import builtins
import fnmatch
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, dataclass_transform

import attrs
import torch
import torch.utils._pytree as pytree
from torch import Tensor

from functrain import norms
from functrain.errors import NotATensor, TreeMismatch

T = TypeVar("T")
Tree = Any
"""Anything made of dicts, lists, tuples and `node` classes; whatever else stands in it is a leaf."""

Structure = pytree.TreeSpec
"""What is left of a tree when its leaves are taken out."""


def static(**options: Any) -> Any:
    """Return an attrs field that belongs to the structure of a `node` instead of its leaves; it must be hashable.

    >>> @node
    ... class Scaled:
    ...     value: Tensor
    ...     unit: str = static(default="m")
    >>> leaves(Scaled(1.0))
    [1.0]
    """
    return attrs.field(metadata={"static": True}, **options)


@dataclass_transform(frozen_default=True, field_specifiers=(static, attrs.field))
def node(cls: type[T]) -> type[T]:
    """Make a class a frozen attrs record whose fields are branches of a tree. Use as a decorator.

    >>> @node
    ... class Point:
    ...     x: float
    ...     y: float
    >>> map(lambda v: v + 1, Point(1, 2))
    Point(x=2, y=3)
    """
    cls = attrs.frozen(cls, slots=False)  # a dict of fields makes `evolve` quick
    fields = attrs.fields(cls)
    dynamic = tuple(f.name for f in fields if not f.metadata.get("static"))
    fixed = tuple(f.name for f in fields if f.metadata.get("static"))

    def flatten(record):
        return [getattr(record, name) for name in dynamic], tuple(getattr(record, name) for name in fixed)

    def unflatten(children, context):
        # Past __init__, so that placeholders of any type (proxies, specs) can stand in for a moment.
        record = object.__new__(cls)
        record.__dict__.update(zip(dynamic, children, strict=True))
        record.__dict__.update(zip(fixed, context, strict=True))
        return record

    def flatten_with_keys(record) -> Any:
        children, context = flatten(record)
        return [(pytree.GetAttrKey(n), c) for n, c in zip(dynamic, children, strict=True)], context

    pytree.register_pytree_node(
        cls,
        flatten,
        unflatten,
        serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
        flatten_with_keys_fn=flatten_with_keys,
    )
    return cls


def evolve(record: T, **changes: Any) -> T:
    """Return a `node` with some fields changed: `attrs.evolve`, several times faster, for what runs at each step.

    >>> @node
    ... class Place:
    ...     x: float
    ...     y: float
    >>> evolve(Place(1, 2), y=3)
    Place(x=1, y=3)
    """
    fields = record.__dict__
    changed = fields | changes
    if len(changed) != len(fields):  # a field that is not there, or a late one
        return attrs.evolve(record, **changes)
    new = object.__new__(record.__class__)
    object.__setattr__(new, "__dict__", changed)  # past the freezing
    return new


def flatten(tree: Tree) -> tuple[list[Any], Structure]:
    """Return the leaves of a tree and its structure, so that `unflatten(structure, leaves)` gives the tree back.

    >>> flatten({"a": 1, "b": (2, 3)})[0]
    [1, 2, 3]
    """
    return pytree.tree_flatten(tree)


def unflatten(structure: Structure, leaves: Iterable[Any]) -> Tree:
    """Return the tree of this structure with these leaves.

    >>> leaves, structure = flatten({"a": 1, "b": (2, 3)})
    >>> unflatten(structure, [4, 5, 6])
    {'a': 4, 'b': (5, 6)}
    """
    return pytree.tree_unflatten(leaves, structure)


def structure(tree: Tree) -> Structure:
    """Return what is left of a tree without its leaves; two structures can be compared with `==`.

    >>> structure({"a": 1}) == structure({"a": 2})
    True
    """
    return pytree.tree_structure(tree)


def leaves(tree: Tree) -> list[Any]:
    """Return the leaves of a tree, in the order of its branches.

    >>> leaves({"b": 1, "a": [2, 3]})
    [1, 2, 3]
    """
    found: list[Any] = []
    _collect(tree, found)
    return found


def _collect(tree: Tree, found: list[Any]) -> None:
    if type(tree) is not dict:
        found.extend(pytree.tree_leaves(tree))
        return
    for branch in tree.values():  # parameters are nested dicts: this path is several times faster than the general one
        if type(branch) is Tensor:
            found.append(branch)
        else:
            _collect(branch, found)


def leaves_with_path(tree: Tree) -> list[tuple[str, Any]]:
    """Return each leaf of a tree with its dotted path.

    >>> leaves_with_path({"0": {"weight": 1.0}, "1": [2.0]})
    [('0.weight', 1.0), ('1.0', 2.0)]
    """
    found, _ = pytree.tree_flatten_with_path(tree)
    return [(".".join(_name(key) for key in path), leaf) for path, leaf in found]


def _name(key: Any) -> str:
    return str(next(getattr(key, name) for name in ("key", "idx", "name") if hasattr(key, name)))


def paths(tree: Tree) -> list[str]:
    """Return the dotted path of each leaf.

    >>> paths({"0": {"weight": 1.0, "bias": 2.0}})
    ['0.weight', '0.bias']
    """
    return [path for path, _ in leaves_with_path(tree)]


def map(f: Callable, tree: Tree, *rest: Tree) -> Tree:
    """Return the tree of `f(leaf, *leaves of the rest at the same place)`.

    Raises `TreeMismatch` when the rest has not the structure of the first tree; the order of dict keys is free.

    >>> map(lambda a, b: a + b, {"x": 1, "y": 2}, {"y": 20, "x": 10})
    {'x': 11, 'y': 22}
    """
    try:
        return _map(f, tree, *rest)
    except _Differs:
        pass
    for other in rest:
        check_same(tree, other)
    raise TreeMismatch("the trees differ in the types of their branches")


class _Differs(Exception):
    """The trees of one `map` differ somewhere; never leaves this module."""


def _map(f, tree, *rest):
    if type(tree) is dict and len(rest) < 2:  # parameters are nested dicts: several times faster than the general path
        if not rest:
            return {k: f(v) if type(v) is Tensor else _map(f, v) for k, v in tree.items()}
        other = rest[0]
        if type(other) is not dict or other.keys() != tree.keys():
            raise _Differs
        return {k: f(v, o) if type(v) is type(o := other[k]) is Tensor else _map(f, v, o) for k, v in tree.items()}
    if type(tree) is Tensor:
        for other in rest:
            if type(other) is dict:
                raise _Differs
        return f(tree, *rest)
    found, spec = pytree.tree_flatten(tree)
    others = [_flatten_as(spec, other) for other in rest]
    return pytree.tree_unflatten([f(*group) for group in zip(found, *others, strict=True)], spec)


def _flatten_as(spec, tree):
    found, own = pytree.tree_flatten(tree)
    if own == spec:
        return found
    try:  # the order of dict keys may still differ
        found = spec.flatten_up_to(tree)
    except ValueError:
        raise _Differs from None
    if not builtins.all(pytree.tree_structure(leaf).is_leaf() for leaf in found):
        raise _Differs
    return found


def map_with_path(f: Callable, tree: Tree, *rest: Tree) -> Tree:
    """Return the tree of `f(dotted path, leaf, *leaves of the rest)`.

    >>> map_with_path(lambda path, leaf: f"{path}={leaf}", {"a": {"b": 1}})
    {'a': {'b': 'a.b=1'}}
    """
    named = unflatten(structure(tree), paths(tree))
    return map(lambda leaf, path, *others: f(path, leaf, *others), tree, named, *rest)


def select(tree: Tree, pattern: str | Callable[[str], bool]) -> dict[str, Any]:
    """Return the leaves whose dotted path matches, as a flat dict by path, in order.

    `pattern` is a shell pattern (`*` also matches dots) or a predicate of the path.

    >>> select({"0": {"weight": 1, "bias": 2}, "2": {"weight": 3}}, "*.weight")
    {'0.weight': 1, '2.weight': 3}
    """
    matches = pattern if callable(pattern) else lambda path: fnmatch.fnmatchcase(path, pattern)
    return {path: leaf for path, leaf in leaves_with_path(tree) if matches(path)}


def stack(trees: list[Tree]) -> Tree:
    """Return one tree whose leaves are the leaves of the trees stacked along a new first axis.

    >>> stack([{"a": 1.0}, {"a": 2.0}])
    {'a': tensor([1., 2.])}
    """
    return map(lambda *group: torch.stack([torch.as_tensor(leaf) for leaf in group]), *trees)


def to(tree: Tree, where: torch.device | torch.dtype | str) -> Tree:
    """Return the tree with its tensors on a device, or its floating-point tensors in a dtype.

    >>> to({"w": torch.ones(2), "n": torch.tensor(3)}, torch.float64)
    {'w': tensor([1., 1.], dtype=torch.float64), 'n': tensor(3)}
    """
    if isinstance(where, torch.dtype):
        return map(lambda t: t.to(where) if isinstance(t, Tensor) and t.is_floating_point() else t, tree)
    return map(lambda t: t.to(where) if isinstance(t, Tensor) else t, tree)


def zeros_like(tree: Tree) -> Tree:
    """Return the tree with each tensor replaced by zeros of its shape, dtype and device.

    >>> zeros_like({"a": torch.ones(2)})
    {'a': tensor([0., 0.])}
    """
    return map(torch.zeros_like, tree)


def size(tree: Tree) -> int:
    """Return the number of elements in all tensors of a tree.

    >>> size({"weight": torch.ones(3, 2), "bias": torch.ones(3)})
    9
    """
    return sum(leaf.numel() for leaf in leaves(tree) if isinstance(leaf, Tensor))


def global_norm(tree: Tree) -> Tensor:
    """Return the Euclidean norm of all leaves taken as one vector, a scalar in float32 at least; 0 without leaves.

    >>> global_norm({"a": torch.tensor([3.0]), "b": torch.tensor([4.0])})
    tensor(5.)
    """
    return norms.norm(leaves(tree))


def equal(a: Tree, b: Tree) -> bool:
    """Return whether two trees are the same, bit for bit: structure, dtypes, shapes and values (NaN equals NaN).

    >>> equal({"a": torch.ones(2)}, {"a": torch.ones(2)})
    True
    """
    return not differences(a, b)


def differences(a: Tree, b: Tree, rtol: float = 0.0, atol: float = 0.0, most: int = 10) -> list[str]:
    """Return where two trees differ, a line each by dotted path with both values, at most `most` lines.

    Values may differ by `atol + rtol * abs(b)`.

    >>> differences({"w": torch.ones(2), "n": 1}, {"w": torch.ones(3), "n": 1})
    ['w: float32(2,) against float32(3,)']
    """
    left, right = dict(leaves_with_path(a)), dict(leaves_with_path(b))
    lines = [f"{path}: {describe(left[path])} against nothing" for path in left if path not in right]
    lines += [f"{path}: nothing against {describe(right[path])}" for path in right if path not in left]
    common = [path for path in left if path in right]
    lines += [line for path in common if (line := _difference(path, left[path], right[path], rtol, atol))]
    return lines if len(lines) <= most else [*lines[: most - 1], f"and {len(lines) - most + 1} more"]


def _difference(path: str, a: Any, b: Any, rtol: float, atol: float) -> str | None:
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return None if type(a) is type(b) and (a is b or a == b) else f"{path}: {a!r} against {b!r}"
    if describe(a) != describe(b):
        return f"{path}: {describe(a)} against {describe(b)}"
    if a.device != b.device:
        return f"{path}: on {a.device} against {b.device}"
    close = torch.isclose(a, b, rtol=rtol, atol=atol, equal_nan=a.is_floating_point() or a.is_complex())
    if bool(close.all()):
        return None
    where = tuple((~close).nonzero()[0].tolist())
    at = f" at {list(where)}" if where else ""
    return f"{path}{at}: {a[where].item()!r} against {b[where].item()!r} ({int((~close).sum())} of {a.numel()} differ)"


def describe(leaf: Any) -> str:
    """Return a leaf in one word: dtype and shape of a tensor, or the type of anything else.

    >>> describe(torch.ones(2, 3))
    'float32(2, 3)'
    """
    if isinstance(leaf, Tensor):
        return f"{str(leaf.dtype).removeprefix('torch.')}{tuple(leaf.shape)}"
    return type(leaf).__name__


def check_same(expected: Tree, got: Tree, what: str = "the second tree", like: str = "the first") -> None:
    """Raise `TreeMismatch` unless `got` has the structure of `expected` and tensors of the same shapes.

    >>> check_same({"a": torch.ones(2)}, {"b": torch.ones(2)}, "gradients", "the parameters")
    Traceback (most recent call last):
        ...
    functrain.errors.TreeMismatch: gradients must have the structure of the parameters, but:
      a: expected float32(2,), got nothing
      b: expected nothing, got float32(2,)
    """
    left, right = dict(leaves_with_path(expected)), dict(leaves_with_path(got))
    lines = []
    for path in [*left, *(p for p in right if p not in left)]:
        want, have = (_form(side[path]) if path in side else "nothing" for side in (left, right))
        if want != have:
            lines.append(f"  {path}: expected {want}, got {have}")
    if lines:
        more = [f"  and {len(lines) - 9} more"] if len(lines) > 10 else []
        shown = lines if len(lines) <= 10 else lines[:9]
        raise TreeMismatch("\n".join([f"{what} must have the structure of {like}, but:", *shown, *more]))


def _form(leaf: Any) -> str:
    return describe(leaf) if isinstance(leaf, Tensor) else "a leaf"


def check_tensors(tree: Tree, what: str, or_none: bool = False) -> None:
    """Raise `NotATensor` unless every leaf is a tensor; with `or_none`, unless it is a tensor or None.

    >>> check_tensors({"lr": 0.1}, "the optimizer state")
    Traceback (most recent call last):
        ...
    functrain.errors.NotATensor: the optimizer state: leaf lr must be a tensor, got float; use torch.as_tensor
    """
    for path, leaf in leaves_with_path(tree):
        if not isinstance(leaf, Tensor) and not (or_none and leaf is None):
            where = f"leaf {path}" if path else "it"
            raise NotATensor(f"{what}: {where} must be a tensor, got {type(leaf).__name__}; use torch.as_tensor")


def all(predicate: Callable[[Any], bool], tree: Tree) -> bool:
    """Return whether the predicate holds for every leaf.

    >>> all(lambda leaf: leaf > 0, {"a": 1, "b": 2})
    True
    """
    return builtins.all(predicate(leaf) for leaf in leaves(tree))
