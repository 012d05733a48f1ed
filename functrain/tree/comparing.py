"""Where two trees differ, and checks that they do not."""

from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from functrain.errors import NotATensor, TreeMismatch
from functrain.records import reprs
from functrain.tree.by_path import leaves_with_path
from functrain.tree.structures import Tree


def equal(a: Tree, b: Tree) -> bool:
    """Return whether two trees are the same: structure, dtypes, devices, shapes and values.

    NaN equals NaN, and 0 equals -0.

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
        same = type(a) is type(b) and (a is b or a == b or (isinstance(a, float) and a != a and b != b))
        return None if same else f"{path}: {a!r} against {b!r}"
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
        return reprs.tensor(leaf)
    return type(leaf).__name__


def alike(a: Tree, b: Tree) -> bool:
    """Return whether two trees have the same structure, with tensors of the same shapes and dtypes; this is quick.

    >>> alike({"a": torch.ones(2), "b": ()}, {"a": torch.zeros(2), "b": ()}), alike([1, 2], (1, 2))
    (True, False)
    """
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape and a.dtype == b.dtype
    kind = type(a)
    if kind is not type(b):
        return False
    if kind is dict:
        return a.keys() == b.keys() and False not in [alike(value, b[name]) for name, value in a.items()]
    if kind is tuple or kind is list:
        return len(a) == len(b) and False not in [alike(x, y) for x, y in zip(a, b, strict=True)]
    registered = pytree.SUPPORTED_NODES.get(kind)
    if registered is None:
        return True
    (children, context), (others, other) = registered.flatten_fn(a), registered.flatten_fn(b)
    return context == other and alike(list(children), list(others))


def check_same(expected: Tree, got: Tree, what: str = "the second tree", like: str = "the first") -> None:
    """Raise `TreeMismatch` unless `got` has the structure of `expected` and tensors of the same shapes.

    >>> check_same({"a": torch.ones(2)}, {"b": torch.ones(2)}, "gradients", "the parameters")
    Traceback (most recent call last):
        ...
    functrain.errors.TreeMismatch: gradients must have the structure of the parameters, but:
      a: expected float32(2,), got nothing
      b: expected nothing, got float32(2,)
    """
    if alike(expected, got):
        return
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
