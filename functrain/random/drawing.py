"""Whole draws, made in two ways with the same bits: by pure tensor operations, and in chunks that stay in the cache."""

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from functrain.random.kinds import is_below, kind_of
from functrain.random.philox import MASK, words_of_block
from functrain.random.words import DRAW, FEW, blocks_for, draw_words, few, fill, halves, integers

MIDDLE = 1 << 15
"""What is added to 16 bits with sign to count them from 0."""


def draw(key: Tensor, shape: Sequence[int], kind: str, numbers: list[Any], dtype: torch.dtype, lane: int = 0) -> Tensor:
    """Return a draw by pure tensor operations.

    Args:
        key: a key, shape (2,), or many, shape (..., 2).
        shape: its shape, which comes after the keys' axes.
        kind: a name of `kinds.KINDS`.
        numbers: what the kind is a function of.
        dtype: the dtype of the result.
        lane: which of the streams of the key.

    >>> draw(torch.tensor([0, 0]), (3,), "fraction", [], torch.float32)
    tensor([0.7017, 0.8028, 0.4805])
    """
    made = kind_of(kind, numbers, dtype)
    return made.finish(*draw_words(key, shape, made.bits, lane))


def draw_quickly(
    key: Tensor, shape: Sequence[int], kind: str, numbers: list[Any], dtype: torch.dtype, lane: int = 0
) -> Tensor:
    """Return the same, of one key in chunks.

    >>> draw_quickly(torch.tensor([0, 0]), (3,), "fraction", [], torch.float32)
    tensor([0.7017, 0.8028, 0.4805])
    """
    if key.dim() > 1:
        return draw(key, shape, kind, numbers, dtype, lane)
    made, count = kind_of(kind, numbers, dtype), math.prod(shape)
    n = blocks_for(count, made.bits)
    if n <= FEW and key.device.type == "cpu":
        finish = partial(_few_of_mask, dtype, *numbers) if kind == "mask" else made.finish
        return few(key, count, made.bits, finish, lane).view(shape)
    out = torch.empty(n, 128 // made.bits, dtype=result_dtype(kind, dtype), device=key.device)
    if kind == "mask":
        _fill_mask(key, out, *numbers)
    else:
        fill(key, out, made.bits, made.finish, lane)
    return out.view(-1)[:count].view(shape)


def _fill_mask(key: Tensor, out: Tensor, limit: int, factor: float) -> None:
    for start, part in halves(key, out.shape[0]):
        out[start : start + part.shape[0]].copy_(_below_in_place(part, limit)).mul_(factor)


def _few_of_mask(dtype: torch.dtype, limit: int, factor: float, half: Tensor) -> Tensor:
    return torch.mul(_below_in_place(half, limit), _number(factor, dtype))


def _below_in_place(half: Tensor, limit: int) -> Tensor:
    """Return 1 where int16 is below a limit and 0 elsewhere, in its memory: four times as quick as truth values."""
    return half.le_(_number(limit - 1, torch.int16)) if limit > 0 else half.lt_(_number(limit, torch.int16))


@lru_cache(maxsize=256)
def _number(value: float, dtype: torch.dtype) -> Tensor:
    """Return a number as a tensor: to make one at each operation takes as long as the operation."""
    with torch.inference_mode(False):
        return torch.tensor(value, dtype=dtype, device="cpu")


def result_dtype(kind: str, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of a draw: that which was asked for, but for one kind.

    >>> result_dtype("open", torch.float32)
    torch.float64
    """
    return torch.float64 if kind == "open" else dtype


def bernoulli(key: Tensor, shape: Sequence[int], limit: int) -> Tensor:
    """Return truth values of probability limit / 2**48, by pure tensor operations.

    An element has 16 bits of the first stream, and below them a word of the second, which matters where the 16 are
    those of the limit; if the limit has nothing below its first 16 bits, it is not even made.

    >>> bernoulli(torch.tensor([0, 0]), (4,), 2**47)
    tensor([False,  True, False,  True])
    """
    high, low = (limit >> 32) - MIDDLE, limit & MASK
    (half,) = draw_words(key, shape, 16)
    below = half < high
    return below | ((half == high) & (draw_words(key, shape, 32, 1)[0] < low)) if low else below


def bernoulli_quickly(key: Tensor, shape: Sequence[int], limit: int) -> Tensor:
    """Return the same, of one key on a CPU in chunks; a word of the second stream is made only where it matters.

    >>> bernoulli_quickly(torch.tensor([0, 0]), (4,), 2**47)
    tensor([False,  True, False,  True])
    """
    if key.dim() > 1 or key.device.type != "cpu":
        return bernoulli(key, shape, limit)
    high, low, count = (limit >> 32) - MIDDLE, limit & MASK, math.prod(shape)
    n = blocks_for(count, 16)
    if n <= FEW:
        below, ties = few(key, count, 16, lambda half: (is_below(half, high), half == high if low else None))
        return (below if ties is None else _resolve(key, below, ties, low)).view(shape)
    out = torch.empty(n, 8, dtype=torch.bool)
    ties = torch.empty_like(out, dtype=torch.int16) if low else out
    for start, part in halves(key, n):
        if low:
            torch.eq(part, high, out=ties[start : start + part.shape[0]])
        out[start : start + part.shape[0]].copy_(_below_in_place(part, high))
    out = _resolve(key, out, ties, low) if low else out
    return out.view(-1)[:count].view(shape)


def _resolve(key: Tensor, below: Tensor, ties: Tensor, low: int) -> Tensor:
    """Decide, in place, where the first 16 bits are those of the limit, which is true of few."""
    flat, both = below.view(-1), integers(key)
    for place in _places(ties.view(-1)):
        flat[place] = _second_word(place, both) < low
    return below


def _places(values: Tensor) -> list[int]:
    """Return where values are not 0. As few are, all of them that fill 64 bits are looked at as one integer."""
    size = 8 // values.element_size()
    if values.shape[0] % size:
        return values.nonzero().view(-1).tolist()
    rows = values.view(torch.int64).nonzero().view(-1)
    row, column = values.view(-1, size)[rows].nonzero().unbind(-1)
    return (size * rows[row] + column).tolist()


def _second_word(place: int, key: tuple[int, int]) -> int:
    """Return the word of the second stream for the element at a place."""
    block = place // 4
    return words_of_block((block & MASK, 0, block >> 32, DRAW + 1), key)[place % 4]


def bernoulli_of(key: Tensor, limit: Tensor, shape: Sequence[int]) -> Tensor:
    """Return truth values of probabilities limit / 2**48, which broadcast to the shape, by pure tensor operations.

    >>> bernoulli_of(torch.tensor([0, 0]), torch.tensor(2**47), (4,))
    tensor([False,  True, False,  True])
    """
    high, low = (limit >> 32) - MIDDLE, limit & MASK
    (half,) = draw_words(key, shape, 16)
    return (half < high) | ((half == high) & (draw_words(key, shape, 32, 1)[0] < low))


def bernoulli_of_quickly(key: Tensor, limit: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the same, of one key on a CPU; a word of the second stream is made only where it matters.

    >>> bernoulli_of_quickly(torch.tensor([0, 0]), torch.tensor(2**47), (4,))
    tensor([False,  True, False,  True])
    """
    if key.dim() > 1 or key.device.type != "cpu":
        return bernoulli_of(key, limit, shape)
    if limit.dim() == 0:
        return bernoulli_quickly(key, shape, int(limit))
    high, low = (limit >> 32) - MIDDLE, limit & MASK
    half = draw_quickly(key, shape, "halves", [], torch.int16).to(torch.int64)
    below, both = half < high, integers(key)
    flat, lows = below.view(-1), low.expand(tuple(shape)).reshape(-1)
    for place in _places(((half == high) & (low > 0)).view(-1)):
        flat[place] = _second_word(place, both) < int(lows[place])
    return below
