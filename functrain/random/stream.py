"""The stream of a key: random words for a shape, made in the way that fits, always with the same bits."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functrain.engine.interpreters import is_plain
from functrain.errors import InvalidArgument, ShapeMismatch
from functrain.random.keys import DRAW, FEW, is_concrete, words
from functrain.random.philox import MASK, blocks, blocks_in_place, counters, pair, round_keys, words_of_block

Shape = int | tuple[int, ...] | list[int]
Finish = Callable[[Tensor, Tensor], Tensor]

CHUNK = 16376
"""Blocks made at a time on a CPU. The buffers, 0.8 MB, stay in the second-level cache; and two rows of them are just
below the 32,768 elements from which PyTorch uses threads, which would wait for each other at each of 60 operations: on
an idle machine they save a quarter of the time, on a busy one they cost four times as much."""

LARGE_CHUNK = 1 << 22
"""The same on other devices, where it bounds the memory that is needed besides the result."""


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
    """Return `finish(words)` for a random 32-bit word an element.

    Args:
        key: a single key.
        shape: the shape of the result.
        dtype: the dtype of the result.
        finish: a pure elementwise function from words, int64 from 0 to 2**32 - 1, to values. It is called with parts.
    """
    return _draw(key, shape, dtype, 4, finish)


def draw_pairs(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype, finish: Finish) -> Tensor:
    """Return `finish(high, low)` for two random 32-bit words an element; the rest is as for `draw`."""
    return _draw(key, shape, dtype, 2, lambda block: finish(block[:2], block[2:]))


def _draw(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype, rows: int, finish: Callable) -> Tensor:
    count = math.prod(shape)
    n = -(-count // rows)
    if not is_plain():
        return finish(_all_blocks(key, n)).flatten()[:count].view(shape)
    if n <= FEW and is_concrete(key):
        return finish(_few_blocks(key, n)).flatten()[:count].view(shape)
    out = torch.empty(rows, n, dtype=dtype, device=key.device)
    _fill(key, out, finish)
    return out.view(-1)[:count].view(shape)


def _all_blocks(key: Tensor, n: int) -> Tensor:
    device = key.device
    even = counters(torch.arange(n, device=device), 1)
    even, odd = blocks(key.unsqueeze(-1), even, pair(0, DRAW, device, 1))
    return torch.cat((even, odd & MASK))


def _few_blocks(key: Tensor, n: int) -> Tensor:
    both = words(key)
    made = [words_of_block((i, 0, 0, DRAW), both) for i in range(n)]
    return torch.tensor([[block[row] for block in made] for row in (0, 2, 1, 3)], dtype=torch.int64)


def _fill(key: Tensor, out: Tensor, finish: Callable) -> None:
    # A chunk goes from counters to values in the cache: several times faster than operations on the whole.
    keys, n, device = round_keys(key), out.shape[1], out.device
    chunk = min(n, CHUNK if device.type == "cpu" else LARGE_CHUNK)
    buffer = spare = torch.empty(0)
    for start in range(0, n, chunk):
        size = min(chunk, n - start)
        if buffer.shape[-1] != size:
            buffer = torch.empty(4, size, dtype=torch.int64, device=device)
            spare = torch.empty(2, size, dtype=torch.int64, device=device)
        blocks_in_place(keys, start, DRAW, buffer, spare)
        part = out[:, start : start + size]
        if part.shape[0] == 2:
            part.copy_(finish(buffer))
        else:
            part[:2], part[2:] = finish(buffer[:2]), finish(buffer[2:])
