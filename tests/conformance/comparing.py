"""Whether two results are the same: structure, shapes, dtypes, strides, and values within a tolerance per dtype."""

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

TOLERANCES = {
    torch.float64: (1e-7, 1e-7),
    torch.float32: (1.3e-6, 1e-5),
    torch.bfloat16: (1.6e-2, 1e-5),
    torch.float16: (1e-3, 1e-5),
    torch.complex128: (1e-7, 1e-7),
    torch.complex64: (1.3e-6, 1e-5),
    torch.complex32: (1e-3, 1e-5),
}
"""dtype -> (relative, absolute), those of `torch.testing.assert_close`; all other dtypes must be equal."""


def difference(expected: Any, got: Any, values: bool = True) -> str | None:
    """Return the first difference between two results in words, or None."""
    (wanted, spec), (found, other) = pytree.tree_flatten(expected), pytree.tree_flatten(got)
    if spec != other:
        return f"structure: {other} for {spec}"
    for k, (a, b) in enumerate(zip(wanted, found, strict=True)):
        words = _difference(a, b, values)
        if words:
            return words if len(wanted) == 1 else f"{words} (result {k})"
    return None


def is_exact(expected: Any, got: Any) -> bool:
    """Return whether the values are equal, NaN to NaN, without any tolerance."""
    pairs = zip(pytree.tree_leaves(expected), pytree.tree_leaves(got), strict=True)
    return all(_close(a, b, (0.0, 0.0)) for a, b in pairs if isinstance(a, Tensor))


def _difference(a: Any, b: Any, values: bool) -> str | None:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        same = type(a) is type(b) and (a == b or a != a)
        return None if same else f"value: {b!r:.60} for {a!r:.60}"
    for what in (_shape, _dtype, _layout, _strides):
        if what(a) != what(b):
            return f"{what.__name__[1:]}: {what(b)} for {what(a)}"
    close = not values or _close(a, b, TOLERANCES.get(a.dtype, (0.0, 0.0)))
    return None if close else f"values: {_brief(b)} for {_brief(a)}"


def _close(a: Tensor, b: Tensor, tolerance: tuple[float, float]) -> bool:
    if a.layout is not torch.strided:
        a, b = a.to_dense(), b.to_dense()
    if a.dtype is torch.complex32:  # has no kernel for what follows
        a, b = a.to(torch.complex64), b.to(torch.complex64)
    if torch.equal(a, b):
        return True
    if not (a.is_floating_point() or a.is_complex()):
        return False
    return torch.allclose(a, b, *tolerance, equal_nan=True)


def _shape(t: Tensor) -> tuple:
    return tuple(t.shape)


def _dtype(t: Tensor) -> torch.dtype:
    return t.dtype


def _layout(t: Tensor) -> torch.layout:
    return t.layout


def _strides(t: Tensor) -> tuple:
    # The stride of an axis of one element, and those of a tensor without elements, lead nowhere.
    if t.layout is not torch.strided or t.numel() == 0:
        return ()
    return tuple(step if size > 1 else 0 for step, size in zip(t.stride(), t.shape, strict=True))


def _brief(t: Tensor) -> str:
    flat = t.detach().reshape(-1)[:4] if t.layout is torch.strided else t.to_dense().reshape(-1)[:4]
    return str(flat.tolist())[:80]
