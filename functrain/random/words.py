"""The words of a draw, of the keys of a split, and of a folded key, each made in two ways with the same bits.

By pure tensor operations, on any device, in traces and transforms; and quickly on a CPU: tens of blocks with Python's
integers, hundreds in a kept workspace, more in buffers that stay in the cache.
"""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from functrain.errors import ShapeMismatch
from functrain.random.philox import (
    MASK,
    blocks,
    blocks_in_place,
    counters,
    pair,
    round_keys,
    words_of_block,
    words_of_blocks,
)
from functrain.random.workspace import with_blocks

FOLD, SPLIT, DRAW = 1 << 28, 2 << 28, 3 << 28
FEWEST, FEW = (160, 4000) if sys.byteorder == "little" else (0, 0)
"""Up to so many blocks, Python's integers are faster on a CPU than tensor operations; and those in a kept workspace
than those in new buffers."""

CHUNK = 16376
"""Blocks made at a time on a CPU. The buffers, 0.8 MB, stay in the second-level cache; and two rows of them are just
below the 32,768 elements from which PyTorch uses threads, which would wait for each other at each of 60 operations: on
an idle machine they save a quarter of the time, on a busy one they cost four times as much."""

FEWER = CHUNK // 4
"""The same for their halves, of which a block has twice as many as two rows have words."""

LARGE_CHUNK = 1 << 22
"""The same on other devices, where it bounds the memory that is needed besides the result."""


def integers(key: Tensor) -> tuple[int, int]:
    """Return the two words of a key on the CPU as integers."""
    first, second = key.tolist()
    return first & MASK, second & MASK


def blocks_for(count: int, bits: int) -> int:
    """Return how many blocks hold `count` elements of so many bits.

    >>> blocks_for(9, 16), blocks_for(4, 32), blocks_for(5, 32), blocks_for(4, 64)
    (2, 1, 2, 2)
    """
    return -(-count * bits // 128)


def draw_words(key: Tensor, shape: Sequence[int], bits: int = 32, lane: int = 0) -> tuple[Tensor, ...]:
    """Return the random bits of a draw, by pure tensor operations.

    Args:
        key: a key, shape (2,), or many, shape (..., 2).
        shape: the shape of the draw.
        bits: how many each element takes. 32: a word; element 4 * i + j is word j of block i. 64: the next two words,
            as two tensors. 16: half a word, the lower half first, as an integer with sign.
        lane: which of the streams of the key, from 0.

    Returns:
        int64 of this shape, or of the keys' axes and this shape.

    >>> draw_words(torch.tensor([0, 0]), (3,))[0].tolist()
    [3013899833, 3448206205, 2063724643]
    """
    count = math.prod(shape)
    words = _flat(key, blocks_for(count, bits), DRAW + lane)
    size = (*key.shape[:-1], *shape)
    if bits == 16:
        halves = words.unsqueeze(-1) >> pair(0, 16, key.device)
        words = ((halves & 0xFFFF) ^ 0x8000) - 0x8000
        return (words.flatten(-2)[..., :count].reshape(size).contiguous(),)
    if bits == 32:
        return (words[..., :count].reshape(size).contiguous(),)
    return words[..., : 2 * count].reshape((*size, 2)).unbind(-1)


def _flat(key: Tensor, n: int, domain: int) -> Tensor:
    """Return the words of the blocks 0 to n - 1, shape (..., 4 * n)."""
    device, dims = key.device, key.dim()
    even = counters(torch.arange(n, device=device), 1).view(2, *[1] * (dims - 1), n)
    even, odd = blocks(key.movedim(-1, 0).unsqueeze(-1), even, pair(0, domain, device, dims))
    words = torch.stack((even, odd & MASK)).permute(*range(2, dims + 2), 1, 0)
    return words.reshape((*key.shape[:-1], 4 * n))


def few(key: Tensor, count: int, bits: int, finish: Callable[..., Any], lane: int = 0) -> Any:
    """Return what a function makes of the same bits for a shape of one axis, quickly, for at most `FEW` blocks.

    Args:
        key: a single key.
        count: the number of elements.
        bits: how many each takes.
        finish: the function, which must return new memory. It gets halves of words as int16.
        lane: which of the streams of the key.

    >>> few(torch.tensor([0, 0]), 2, 32, lambda words: words * 2)
    tensor([6027799666, 6896412410])
    """
    n, both, domain = blocks_for(count, bits), integers(key), DRAW + lane
    if n > FEWEST:
        return with_blocks(n, domain, both, lambda made: finish(*_elements(made.words, count, bits)))
    words = torch.tensor(words_of_block((0, 0, 0, domain), both)) if n == 1 else words_of_blocks(n, domain, both)
    return finish(*_elements(words.reshape(-1), count, bits))


def _elements(words: Tensor, count: int, bits: int) -> tuple[Tensor, ...]:
    """Return the elements of a draw, of its words as int32 or int64."""
    if bits == 16:
        return (_first(words.to(torch.int32).view(torch.int16), count),)
    if words.dtype is torch.int32:
        words = words.to(torch.int64).bitwise_and_(MASK)
    return (_first(words, count),) if bits == 32 else words[: 2 * count].view(-1, 2).unbind(-1)


def _first(values: Tensor, count: int) -> Tensor:
    return values if values.shape[0] == count else values[:count]


def chunks(key: Tensor, n: int, lane: int = 0) -> Iterator[tuple[int, Tensor]]:
    """Yield the blocks 0 to n - 1 in chunks: the number of the first, and words 0, 2, 1, 3 of each, int64 (4, size).

    What is done with a chunk while it is in the cache is several times faster than operations on the whole. The next
    chunk is written over it.
    """
    keys, device = round_keys(key), key.device
    chunk = min(n, CHUNK if device.type == "cpu" else LARGE_CHUNK)
    buffer = spare = torch.empty(0)
    for start in range(0, n, chunk or 1):
        size = min(chunk, n - start)
        if buffer.shape[-1] != size:
            buffer = torch.empty(4, size, dtype=torch.int64, device=device)
            spare = torch.empty(2, size, dtype=torch.int64, device=device)
        blocks_in_place(keys, start, DRAW + lane, buffer, spare)
        yield start, buffer


def halves(key: Tensor, n: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the halves of the words of the blocks 0 to n - 1, int16 (size, 8), each time with the first's number."""
    step = FEWER if key.device.type == "cpu" else LARGE_CHUNK
    for start, words in chunks(key, n):
        packed = torch.empty(words.shape[1], 2, dtype=torch.int64, device=key.device)
        torch.bitwise_or(words[:2], words[2:].bitwise_left_shift_(32), out=packed.t())
        for begin in range(0, packed.shape[0], step):
            yield start + begin, packed[begin : begin + step].view(torch.int16)


def fill(key: Tensor, out: Tensor, bits: int, finish: Callable[..., Tensor], lane: int = 0) -> None:
    """Write values made of random bits into a tensor, chunk by chunk.

    Args:
        key: a single key.
        out: for n blocks (n, 128 / bits).
        bits: how many each value takes.
        finish: the function from them to values, as for `kinds.Kind`.
        lane: which of the streams of the key.
    """
    if bits == 16:
        for start, part in halves(key, out.shape[0]):
            out[start : start + part.shape[0]] = finish(part)
        return
    for start, words in chunks(key, out.shape[0], lane):
        part = out[start : start + words.shape[1]].view(words.shape[1], 2, -1).movedim(0, -1)  # (pair, word of it, n)
        if bits == 64:
            part[:, 0] = finish(words[:2], words[2:])
        else:
            part[:, 0], part[:, 1] = finish(words[:2]), finish(words[2:])


def children(key: Tensor, n: int) -> Tensor:
    """Return the keys of a split, shape (..., n, 2), by pure tensor operations.

    >>> children(torch.tensor([0, 0]), 2).shape
    torch.Size([2, 2])
    """
    dims = key.dim()
    even = counters(torch.arange(n, device=key.device), 1).view(2, *[1] * (dims - 1), n)
    made, _ = blocks(key.movedim(-1, 0).unsqueeze(-1), even, pair(0, SPLIT, key.device, dims))
    return made.movedim(0, -1).contiguous()


def children_quickly(key: Tensor, n: int) -> Tensor:
    """Return the same on a CPU.

    >>> bool((children_quickly(torch.tensor([0, 0]), 2) == children(torch.tensor([0, 0]), 2)).all())
    True
    """
    if n > FEW or key.dim() > 1:
        return children(key, n)
    both = integers(key)
    if n <= FEWEST:
        return words_of_blocks(n, SPLIT, both)[:, ::2].contiguous()
    return with_blocks(n, SPLIT, both, lambda made: made.words.view(n, 4)[:, ::2].to(torch.int64) & MASK)


def child(key: Tensor, number: int | Tensor, first: int, third: int) -> Tensor:
    """Return the key of a key and a number, by pure tensor operations.

    Args:
        key: a key, shape (2,), or many, shape (..., 2).
        number: an integer, or a tensor of them, whose shape broadcasts with that of the keys.
        first: word 1 of the counter.
        third: word 3 of the counter.

    >>> child(torch.tensor([0, 0]), 5, 0, FOLD).shape
    torch.Size([2])
    """
    device = key.device
    if not isinstance(number, Tensor):
        number = torch.full((), number, device=device)
    number = number.to(device, torch.int64)
    if key.dim() == 1 and number.dim() == 0:
        return blocks(key, counters(number), pair(first, third, device))[0]
    shape = common_shape(key, number)
    keys, dims = key.expand(*shape, 2).movedim(-1, 0), len(shape)
    even = counters(number.expand(shape), dims)
    return blocks(keys, even, pair(first, third, device, dims))[0].movedim(0, -1).contiguous()


def common_shape(key: Tensor, number: Tensor) -> tuple[int, ...]:
    """Return the shape that keys, without their last axis, and numbers broadcast to, or raise `ShapeMismatch`."""
    shapes = key.shape[:-1], number.shape
    rank = max(map(len, shapes))
    pairs = list(zip(*((1,) * (rank - len(shape)) + tuple(shape) for shape in shapes), strict=True))
    if any(m != n and 1 not in (m, n) for m, n in pairs):
        raise ShapeMismatch(
            f"the shape of the keys, {tuple(shapes[0])} before the last axis, and that of the numbers to fold in, "
            f"{tuple(shapes[1])}, must broadcast"
        )
    return tuple(n if m == 1 else m for m, n in pairs)


def child_quickly(key: Tensor, number: int | Tensor, first: int, third: int) -> Tensor:
    """Return the same on a CPU.

    >>> bool((child_quickly(torch.tensor([0, 0]), 5, 0, FOLD) == child(torch.tensor([0, 0]), 5, 0, FOLD)).all())
    True
    """
    if key.dim() > 1 or (isinstance(number, Tensor) and number.dim()):
        return child(key, number, first, third)
    return descendant_quickly(key, [(number, first, third)])


def descendant_quickly(key: Tensor, steps: Sequence[tuple[int | Tensor, int, int]]) -> Tensor:
    """Return the child of the child and so on of one key on a CPU, of (number, first, third) each time.

    >>> descendant_quickly(torch.tensor([0, 0]), [(5, 0, FOLD), (6, 0, FOLD)]).shape
    torch.Size([2])
    """
    words = integers(key)
    for number, first, third in steps:
        whole = int(number)
        word0, _, word2, _ = words_of_block((whole & MASK, first, (whole >> 32) & MASK, third), words)
        words = word0, word2
    return torch.tensor(words)
