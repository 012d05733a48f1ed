"""The stream of a key: random words for a shape, made in the way that fits, always with the same bits."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functrain.dispatch_state import is_plain
from functrain.errors import InvalidArgument, ShapeMismatch
from functrain.random import leaf
from functrain.random.keys import is_concrete
from functrain.random.words import FEW, few, fill

Shape = int | tuple[int, ...] | list[int]
Finish = Callable[[Tensor, Tensor], Tensor]


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


def draw(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype, finish: Callable[[Tensor], Tensor]) -> Tensor:
    """Return `finish(words)` for a random 32-bit word an element, which depends on the key and its place alone.

    Element 4 * i + j gets word j of block i. So a draw begins with what a shorter one holds, and rows added to a batch
    leave the draws of the others as they are.

    Args:
        key: a single key.
        shape: the shape of the result.
        dtype: the dtype of the result.
        finish: a pure elementwise function from words, int64 from 0 to 2**32 - 1, to values. It is called with parts.
    """
    if not is_plain():
        return finish(leaf.drawn(key, shape))
    count = math.prod(shape)
    if count <= 4 * FEW and is_concrete(key):
        return finish(few(key, count)).view(shape)
    out = torch.empty(-(-count // 4), 2, 2, dtype=dtype, device=key.device)
    fill(key, out, finish)
    return out.view(-1)[:count].view(shape)


def draw_pairs(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype, finish: Finish) -> Tensor:
    """Return `finish(high, low)` for two random 32-bit words an element, the next two; the rest is as for `draw`."""
    if not is_plain():
        return finish(*leaf.drawn(key, (*shape, 2)).unbind(-1))
    count = math.prod(shape)
    if count <= 2 * FEW and is_concrete(key):
        return finish(*few(key, 2 * count).view(*shape, 2).unbind(-1))
    out = torch.empty(-(-count // 2), 2, dtype=dtype, device=key.device)
    fill(key, out, finish)
    return out.view(-1)[:count].view(shape)
