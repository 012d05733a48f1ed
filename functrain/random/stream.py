"""What all draws share: the checks of shapes, and the choice of the way to draw, always with the same bits."""

from typing import Any

import torch
from torch import Tensor

from functrain.dispatch_state import is_plain
from functrain.errors import InvalidArgument, ShapeMismatch
from functrain.random import drawing, leaf

Shape = int | tuple[int, ...] | list[int]


def check_shape(shape: Any) -> tuple[int, ...]:
    """Return a shape as a tuple, or raise `InvalidArgument`."""
    sizes = (shape,) if isinstance(shape, int) else shape
    if isinstance(sizes, tuple | list) and all(type(size) is int and size >= 0 for size in sizes):
        return tuple(sizes)
    raise InvalidArgument(f"shape must be an integer of at least 0 or a tuple of them, got {shape!r}")


def check_fits(name: str, of: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Raise `ShapeMismatch` unless the shape of an argument broadcasts to the shape of a draw."""
    try:
        fits = not of or torch.broadcast_shapes(of, shape) == shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ShapeMismatch(f"{name} of shape {tuple(of)} must broadcast to the shape of the draw, {shape}")


def draw(
    key: Tensor, shape: tuple[int, ...], kind: str, numbers: list[Any], dtype: torch.dtype, lane: int = 0
) -> Tensor:
    """Return a draw, in which an element depends on the key and its place alone.

    So a draw begins with what a shorter one holds, and rows added to a batch leave the draws of the others as they are.

    Args:
        key: a single key.
        shape: the shape of the result.
        kind: a name of `kinds.KINDS`.
        numbers: what the kind is a function of.
        dtype: the dtype of the result.
        lane: which of the streams of the key.

    >>> draw(torch.tensor([0, 0]), (3,), "fraction", [], torch.float32)
    tensor([0.7017, 0.8028, 0.4805])
    """
    return (drawing.draw_quickly if is_plain() else leaf.draw)(key, shape, kind, numbers, dtype, lane)


def bernoulli(key: Tensor, shape: tuple[int, ...], limit: int | Tensor) -> Tensor:
    """Return truth values of probability limit / 2**48, a number or a tensor that broadcasts to the shape.

    >>> bernoulli(torch.tensor([0, 0]), (4,), 2**47)
    tensor([False,  True, False,  True])
    """
    if not is_plain():
        return leaf.bernoulli(key, shape, limit)
    if isinstance(limit, Tensor):
        return drawing.bernoulli_of_quickly(key, limit, shape)
    return drawing.bernoulli_quickly(key, shape, limit)
