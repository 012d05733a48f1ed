"""The words of a draw, of the keys of a split, and of a folded key, each made in two ways with the same bits.

By pure tensor operations, on any device, in traces and transforms; and quickly on a CPU: up to hundreds of blocks with
Python's integers, more in buffers that stay in the cache.
"""

import math
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from functrain.errors import InvalidKey, ShapeMismatch
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

FOLD, SPLIT, DRAW = 1 << 28, 2 << 28, 3 << 28
FEW = 600 if sys.byteorder == "little" else 0
"""Up to so many blocks, Python's integers are faster than tensor operations on a CPU."""

CHUNK = 16376
"""Blocks made at a time on a CPU. The buffers, 0.8 MB, stay in the second-level cache; and two rows of them are just
below the 32,768 elements from which PyTorch uses threads, which would wait for each other at each of 60 operations: on
an idle machine they save a quarter of the time, on a busy one they cost four times as much."""

LARGE_CHUNK = 1 << 22
"""The same on other devices, where it bounds the memory that is needed besides the result."""


def integers(key: Tensor) -> tuple[int, int]:
    """Return the two words of a key on the CPU as integers."""
    first, second = key.tolist()
    if not (0 <= first <= MASK and 0 <= second <= MASK):
        raise InvalidKey(
            f"the words of a random key must be from 0 to 2**32 - 1, got {[first, second]}; random.key(seed) makes one"
        )
    return first, second


def drawn(key: Tensor, shape: Sequence[int]) -> Tensor:
    """Return random words of a shape, by pure tensor operations: element 4 * i + j is word j of block i.

    For many keys, shape (..., 2), it has their axes before those of the shape.

    >>> drawn(torch.tensor([0, 0]), (3,)).tolist()
    [3013899833, 3448206205, 2063724643]
    """
    count, device, dims = math.prod(shape), key.device, key.dim()
    n = -(-count // 4)
    even = counters(torch.arange(n, device=device), 1).view(2, *[1] * (dims - 1), n)
    even, odd = blocks(key.movedim(-1, 0).unsqueeze(-1), even, pair(0, DRAW, device, dims))
    words = torch.stack((even, odd & MASK)).permute(*range(2, dims + 2), 1, 0)
    return words.reshape((*key.shape[:-1], 4 * n))[..., :count].reshape((*key.shape[:-1], *shape)).contiguous()


def drawn_quickly(key: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the same on a CPU.

    >>> drawn_quickly(torch.tensor([0, 0]), (3,)).tolist()
    [3013899833, 3448206205, 2063724643]
    """
    if key.dim() > 1:
        return drawn(key, shape)
    count = math.prod(shape)
    n = -(-count // 4)
    if n <= FEW:
        return few(key, count).view(shape)
    out = torch.empty(4 * n, dtype=torch.int64)
    fill(key, out.view(n, 2, 2), lambda words: words)
    return out[:count].view(shape)


def few(key: Tensor, count: int) -> Tensor:
    """Return the same in one axis, by Python's integers."""
    n, both = -(-count // 4), integers(key)
    if n == 1:
        return torch.tensor(words_of_block((0, 0, 0, DRAW), both)[:count])
    return words_of_blocks(n, DRAW, both).reshape(-1)[:count]


def fill(key: Tensor, out: Tensor, finish: Callable[..., Tensor]) -> None:
    """Write values made of random words into a tensor, chunk by chunk.

    A chunk goes from counters to values in the cache: several times faster than operations on the whole.

    Args:
        key: a single key.
        out: for n blocks (n, 2, 2), each value made of one word; or (n, 2), each made of two.
        finish: for values of one word, from words to values; for values of two, from both words to values.
    """
    keys, n, device = round_keys(key), out.shape[0], out.device
    chunk = min(n, CHUNK if device.type == "cpu" else LARGE_CHUNK)
    buffer = spare = torch.empty(0)
    for start in range(0, n, chunk):
        size = min(chunk, n - start)
        if buffer.shape[-1] != size:
            buffer = torch.empty(4, size, dtype=torch.int64, device=device)
            spare = torch.empty(2, size, dtype=torch.int64, device=device)
        blocks_in_place(keys, start, DRAW, buffer, spare)
        part = out[start : start + size].movedim(0, -1)
        if out.dim() == 2:
            part.copy_(finish(buffer[:2], buffer[2:]))
        else:
            part[:, 0], part[:, 1] = finish(buffer[:2]), finish(buffer[2:])


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
    return words_of_blocks(n, SPLIT, integers(key))[:, ::2].contiguous()


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
    whole = int(number.item()) if isinstance(number, Tensor) else number
    counter = (whole & MASK, first, (whole >> 32) & MASK, third)
    return torch.tensor(words_of_block(counter, integers(key))[::2])
