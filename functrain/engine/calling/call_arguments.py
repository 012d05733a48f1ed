"""The arguments of one call of a compiled function: what in them is a tensor, donated, or static, and its name."""

import inspect
from collections.abc import Callable, Hashable
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import tree
from functrain.engine.calling.donation import check_usable
from functrain.engine.calling.tree_code import TENSOR, Again, Opaque
from functrain.errors import NotATensor, NotTraceable, UnhashableStatic


@attrs.frozen
class Call:
    """The arguments of a call, taken apart.

    Attributes:
        spec: the structure of `(*args, *values of kwargs by name)`.
        static: for each leaf `TENSOR`, `Again` where it is a tensor that came before, or its value.
        tensors: the tensors among the leaves, each once, plain and without gradients.
        originals: the same as they were passed.
        tensor_paths: their dotted paths.
        donated: which of the tensors are donated: one that is passed elsewhere too, and kept there, is not.
        signature: dotted path -> what a trace depends on, in words.
        positional: the number of positional arguments.
        keywords: the names of the others, sorted.
    """

    spec: tree.Structure
    static: list[Any]
    tensors: list[Tensor]
    originals: list[Tensor]
    tensor_paths: list[str]
    donated: list[int]
    signature: dict[str, str]
    positional: int
    keywords: tuple[str, ...]

    @property
    def args(self) -> tuple:
        """The positional arguments, with plain tensors."""
        return self.rebuild(self.tensors)[0]

    @property
    def kwargs(self) -> dict:
        """The keyword arguments, with plain tensors."""
        return self.rebuild(self.tensors)[1]

    def rebuild(self, tensors: Any) -> tuple[tuple, dict]:
        """Return (args, kwargs) with these tensors in place of its own."""
        remaining = iter(tensors)
        leaves: list[Any] = []
        for value in self.static:
            if value is TENSOR:
                leaves.append(next(remaining))
            elif isinstance(value, Again):
                leaves.append(leaves[value.leaf])
            else:
                leaves.append(value.value if isinstance(value, Opaque) else value)
        everything = tree.unflatten(self.spec, leaves)
        args = everything[: self.positional]
        return tuple(args), dict(zip(self.keywords, everything[self.positional :], strict=True))


def read_call(args: tuple, kwargs: dict, names: tuple[str, ...], donate: frozenset, static: frozenset) -> Call:
    """Take the arguments of a call apart.

    Args:
        args: the positional arguments.
        kwargs: the keyword arguments.
        names: the names of the parameters.
        donate: positions (or names of keywords that have none) that are donated.
        static: the same for those that are static as a whole.

    Raises:
        DonatedValueUsed: a tensor was donated before.
        UnhashableStatic: a leaf, or a static argument, is not hashable.
    """
    keywords = tuple(sorted(kwargs))
    labels = [names[k] if k < len(names) else f"args[{k}]" for k in range(len(args))] + list(keywords)
    at = [*range(len(args)), *(names.index(k) if k in names else k for k in keywords)]
    everything = [*args, *(kwargs[k] for k in keywords)]
    wrapped = tuple(Opaque(v) if p in static else v for v, p in zip(everything, at, strict=True))
    leaves, spec = tree.flatten(wrapped)
    paths, owners = _paths(wrapped, labels)
    check_usable(zip(paths, leaves, strict=True))
    values = _static_values(leaves, paths)
    at_first = [k for k, value in enumerate(values) if value is TENSOR]
    kept = {id(leaf) for leaf, owner in zip(leaves, owners, strict=True) if at[owner] not in donate}
    donated = [i for i, k in enumerate(at_first) if id(leaves[k]) not in kept]
    signature = {path: _describe(leaf) for path, leaf in zip(paths, leaves, strict=True)}
    signature |= {paths[k]: f"the same as {paths[v.leaf]}" for k, v in enumerate(values) if isinstance(v, Again)}
    originals, tensor_paths = [leaves[k] for k in at_first], [paths[k] for k in at_first]
    tensors = [_plain(t, p) for t, p in zip(originals, tensor_paths, strict=True)]
    return Call(spec, values, tensors, originals, tensor_paths, donated, signature, len(args), keywords)


def _static_values(leaves: list[Any], paths: list[str]) -> list[Any]:
    """Return what stands for each leaf in a signature."""
    first: dict[int, int] = {}
    values = []
    for k, (leaf, path) in enumerate(zip(leaves, paths, strict=True)):
        if not isinstance(leaf, Tensor):
            values.append(_hashable(leaf, path))
        elif id(leaf) in first:
            values.append(Again(first[id(leaf)]))
        else:
            first[id(leaf)] = k
            values.append(TENSOR)
    return values


def _paths(wrapped: tuple, labels: list[str]) -> tuple[list[str], list[int]]:
    paths, owners = [], []
    for k, (label, argument) in enumerate(zip(labels, wrapped, strict=True)):
        for path in tree.paths(argument):
            paths.append(f"{label}.{path}" if path else label)
            owners.append(k)
    return paths, owners


def _hashable(leaf: Any, path: str) -> Hashable:
    value = leaf.value if isinstance(leaf, Opaque) else leaf
    try:
        hash(value)
    except TypeError:
        raise UnhashableStatic(
            f"{path} is not a tensor, so it is static, and must be hashable: got {type(value).__name__}; convert an "
            "array with torch.as_tensor, make a set frozen, or register a class with tree.node"
        ) from None
    return leaf


def _plain(tensor: Tensor, path: str) -> Tensor:
    kind = type(tensor)
    if kind is not Tensor and not issubclass(kind, torch.nn.Parameter):
        raise NotATensor(f"{path}: jit takes plain tensors, got {kind.__name__}; use as_subclass(torch.Tensor)")
    if tensor.layout is not torch.strided:
        layout = str(tensor.layout).removeprefix("torch.")
        raise NotTraceable(f"{path}: jit takes dense tensors, got layout {layout}; convert it with to_dense()")
    if kind is not Tensor or tensor.requires_grad:
        tensor = tensor.detach()
    return tensor.resolve_conj().resolve_neg()


def _describe(leaf: Any) -> str:
    if isinstance(leaf, Opaque):
        leaf = leaf.value
    if not isinstance(leaf, Tensor):
        return repr(leaf)[:60]
    words = tree.describe(leaf) + ("" if leaf.device.type == "cpu" else f" on {leaf.device}")
    if leaf.layout is not torch.strided or leaf.is_contiguous():
        return words
    return f"{words} with strides {leaf.stride()}"


def same_arguments(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Return in what two signatures differ, a line each.

    >>> same_arguments({"x": "float32(2,)"}, {"x": "float32(3,)"})
    ['x: float32(2,) became float32(3,)']
    """
    lines = [f"{p}: {before[p]} became {now[p]}" for p in now if p in before and before[p] != now[p]]
    lines += [f"{p} is new: {now[p]}" for p in now if p not in before]
    return lines + [f"{p} is gone" for p in before if p not in now]


def parameter_names(f: Callable) -> tuple[str, ...]:
    """Return the names of the parameters of a function that may be passed by position."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        return ()
    return tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD))


def takes_any(f: Callable) -> bool:
    """Return whether a function has parameters that are passed by name alone, or takes any name."""
    try:
        kinds = [p.kind for p in inspect.signature(f).parameters.values()]
    except (TypeError, ValueError):
        return True
    return any(k in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.KEYWORD_ONLY) for k in kinds)
