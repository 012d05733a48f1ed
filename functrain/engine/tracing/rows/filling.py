"""Writes where a mask is true, under `vmap`: of each example other elements are written, and another number of them.

They are made with `torch.where`, element by element. Where a value has one element for each that is written, these are
counted.
"""

from typing import Any

import torch
from torch import Tensor

from functrain.dispatch_contexts import unseen
from functrain.dispatch_state import innermost, vectorizing_levels


def is_mapped(*values: Any) -> bool:
    """Return whether `vmap` maps over an axis of one of the values.

    >>> is_mapped(torch.ones(2), 3), torch.func.vmap(lambda x: x * is_mapped(x))(torch.ones(2))
    (False, tensor([1., 1.]))
    """
    return bool(vectorizing_levels(t for t in values if isinstance(t, Tensor)))


def fill(x: Tensor, axis: int, mask: Tensor, value: Any, accumulate: bool = False) -> None:
    """Write a value to the elements of a tensor where a mask is true.

    Args:
        x: the tensor.
        axis: where in it the axes of the mask begin.
        mask: of bools or bytes.
        value: a number or a tensor that broadcasts to what `x[..., mask]` would be, with one axis for the mask's.
        accumulate: whether the value is added to what is there.

    >>> x = torch.zeros(2, 3)
    >>> fill(x, 1, torch.tensor([True, False, True]), torch.tensor([1.0, 2.0]))
    >>> x
    tensor([[1., 0., 2.],
            [1., 0., 2.]])
    """
    mask, end = mask.bool(), axis + mask.dim()
    if x.shape[axis:end] != mask.shape:
        raise IndexError(
            f"The shape of the mask {list(mask.shape)} at index 0 does not match the shape of the indexed tensor "
            f"{list(x.shape)} at index {axis}"
        )
    value = _as_tensor(value, x)
    made = _at_elements(_without_ones(value, 1 + x.dim() - mask.dim()), mask, x.dim() - end).expand(x.shape)
    x.copy_(torch.where(mask.reshape((*mask.shape, *(1,) * (x.dim() - end))), x + made if accumulate else made, x))


def _as_tensor(value: Any, like: Tensor) -> Tensor:
    if not isinstance(value, Tensor):
        return torch.full((), value, dtype=like.dtype, device=like.device)
    if value.dtype is not like.dtype and value.numel() != 1:
        refuse_dtypes(like, value)
    return value.to(dtype=like.dtype, device=like.device)


def refuse_dtypes(x: Tensor, value: Tensor) -> None:
    """Raise what PyTorch raises where a value of another dtype is written by tensors of indices.

    >>> refuse_dtypes(torch.ones(1), torch.ones(1).double())
    Traceback (most recent call last):
        ...
    RuntimeError: Index put requires the source and destination dtypes match, got float32 for the destination and \
float64 for the source.
    """
    names = (str(t.dtype).removeprefix("torch.") for t in (x, value))
    raise RuntimeError(
        "Index put requires the source and destination dtypes match, got {} for the destination and {} for the "
        "source.".format(*names)
    )


def _without_ones(value: Tensor, most: int) -> Tensor:
    while value.dim() > most and value.shape[0] == 1:  # PyTorch drops these axes too
        value = value[0]
    return value


def _at_elements(value: Tensor, mask: Tensor, after: int) -> Tensor:
    """Return a value with the axes of a mask in place of the one axis of the elements that are written."""
    axis = value.dim() - after - 1
    if axis < 0:
        return value
    n, before, behind = value.shape[axis], value.shape[:axis], value.shape[axis + 1 :]
    if n == 1:
        return value.reshape((*before, *(1,) * mask.dim(), *behind))
    order = order_of_true(mask, n, n, f"shape mismatch: a value of {n} elements is written to another number of them")
    if n == 0:
        return value.new_zeros((*before, *(1,) * mask.dim(), *behind))
    return value.index_select(axis, order).reshape((*before, *mask.shape, *behind))


def order_of_true(mask: Tensor, least: int, most: int, otherwise: str) -> Tensor:
    """Return for each place of a mask the number of places before it that are true, as a vector.

    Args:
        mask: of bools.
        least: how many must be true at least; where they are not, the call fails.
        most: how many may be true.
        otherwise: what is said then.

    >>> order_of_true(torch.tensor([[True, False], [True, True]]), 0, 4, "too many")
    tensor([0, 0, 1, 2])
    """
    ends = mask.reshape(-1).cumsum(0)
    count = mask.sum()
    fits = (count >= least) & (count <= most)
    with unseen():
        torch.ops.aten._assert_async.msg(innermost(fits).all(), otherwise)
    return (ends - 1).clamp(0, max(most - 1, 0))
