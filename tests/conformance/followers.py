"""What may follow an operator in a function: views of its result, copies, and writes in place."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


def _reshape(y: Tensor) -> Any:
    return y.reshape(-1)


def _view(y: Tensor) -> Any:
    return y.view(-1)


def _transpose_contiguous(y: Tensor) -> Any:
    turned = y.transpose(0, -1)
    return turned.contiguous(), turned.contiguous().view(-1)


def _clone_mul(y: Tensor) -> Any:
    z = y.clone()
    z.mul_(2)
    return z, y


def _clone_zero_slice(y: Tensor) -> Any:
    z = y.clone()
    z[..., :1].zero_()
    return z, y


def _clone_write_transposed(y: Tensor) -> Any:
    z = y.clone()
    z.transpose(0, -1).mul_(2)
    return z


def _clone_write_view_read_base(y: Tensor) -> Any:
    z = y.clone()
    before = z + 0
    part = z.select(0, 0)
    part.add_(1)
    return before, z.sum(0), part


def _clone_write_base_read_view(y: Tensor) -> Any:
    z = y.clone()
    flat = z.view(-1)
    z.mul_(3)
    return flat.flip(0), z


def _write_own(y: Tensor) -> Any:
    y.mul_(2)
    return y


def _write_own_read_before(y: Tensor) -> Any:
    before = y * 1
    row = y.select(0, 0)
    y.copy_(y.flip(0))
    return before, row, y


FOLLOWERS: dict[str, Callable[[Tensor], Any]] = {
    f.__name__.removeprefix("_"): f
    for f in (
        _reshape,
        _view,
        _transpose_contiguous,
        _clone_mul,
        _clone_zero_slice,
        _clone_write_transposed,
        _clone_write_view_read_base,
        _clone_write_base_read_view,
        _write_own,
        _write_own_read_before,
    )
}


def followed(f: Callable, name: str) -> Callable:
    """Return a function that follows each tensor of another's result so.

    Writing to the operator's own result writes to an argument where the result is a view of it: that must be refused.
    """

    def both(*tensors: Tensor) -> list[Any]:
        results = [y for y in pytree.tree_leaves(f(*tensors)) if isinstance(y, Tensor)]
        return [FOLLOWERS[name](y) for y in results]

    return both


def weighted_sum(result: Any) -> Tensor:
    """Return the sum of the real and complex values of a result, each with a weight of its own."""
    leaves = [y for y in pytree.tree_leaves(result) if isinstance(y, Tensor)]
    total = torch.zeros(())
    for y in [y for y in leaves if y.is_floating_point() or y.is_complex()]:
        y = torch.view_as_real(y.resolve_conj()) if y.is_complex() else y
        weight = torch.arange(y.numel(), dtype=torch.float32).add(0.5).cos().reshape(y.shape)
        total = total + (y * weight).sum()
    return total
