"""Philox4x32-10, the counter-based generator under every draw, five times with the same bits.

A block is a function of a counter and a key: four 32-bit words from four and two. `words_of_block` computes one with
Python's integers; `words_of_blocks` tens in a row with integers that hold a word of each; `workspace` hundreds in kept
buffers; `blocks_in_place` writes into buffers that stay in the processor's cache, for many; and `blocks` computes any
number with pure tensor operations, for traces, transforms and other devices.

Words are held in int64 tensors; a product of two 32-bit words wraps there, but its 64 bits are the right ones. Words 0
and 2 are the rows of one tensor (`even`) and words 1 and 3 of another (`odd`), so one operation serves both.

Reference: Salmon, Moraes, Dror and Shaw, Parallel random numbers: as easy as 1, 2, 3, SC 2011.
"""

from functools import lru_cache

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10


def words_of_block(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the four words of one block, by Python's integers.

    >>> [f"{word:x}" for word in words_of_block((0, 0, 0, 0), (0, 0))]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(ROUNDS):
        p0, p2 = c0 * 0xD2511F53, c2 * 0xCD9E8D57  # literals: this loop is most of the cost of a small draw
        c0, c1, c2, c3 = (p2 >> 32) ^ c1 ^ k0, p2 & 0xFFFFFFFF, (p0 >> 32) ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def words_of_blocks(n: int, domain: int, key: tuple[int, int]) -> Tensor:
    """Return the blocks of the counters 0 to n - 1, by Python's integers of n times 64 bits.

    An operation on such an integer does what one on a tensor does, and costs a tenth while n is small. Only where the
    lowest byte of a number is stored first.

    Args:
        n: the number of blocks, below 2**32.
        domain: word 3 of every counter; words 1 and 2 are 0.
        key: the two words of the key.

    Returns:
        The words, int64 (n, 4).

    >>> [f"{word:x}" for word in words_of_blocks(1, 0, (0, 0))[0].tolist()]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    if not n:
        return torch.empty(0, 4, dtype=torch.int64)
    ones, masks, c0, w0, w1 = _lanes(n)
    k0, k1 = key[0] * ones, key[1] * ones
    # The first round, in which words 1 and 2 are 0: word 0 becomes a part of the key, and word 1 stays 0.
    p0 = c0 * 0xD2511F53  # a product of two words fits its 64 bits
    c2, c3 = ((p0 >> 32) ^ domain * ones ^ k1) & masks, p0  # whose higher halves go at the next mask
    p0, p2 = key[0] * 0xD2511F53 * ones, c2 * 0xCD9E8D57
    k0, k1 = k0 + w0, k1 + w1  # what overflows a word goes at the mask, and ten times fit the 64 bits
    c0, c1, c2, c3 = ((p2 >> 32) ^ k0) & masks, p2, ((p0 >> 32) ^ c3 ^ k1) & masks, p0
    for _ in range(ROUNDS - 2):
        k0, k1 = k0 + w0, k1 + w1
        p0, p2 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = ((p2 >> 32) ^ c1 ^ k0) & masks, p2, ((p0 >> 32) ^ c3 ^ k1) & masks, p0
    made = bytearray().join(word.to_bytes(8 * n, "little") for word in (c0, c1 & masks, c2, c3 & masks))
    return torch.frombuffer(made, dtype=torch.int64).view(4, n).t()


@lru_cache(maxsize=64)
def _lanes(n: int) -> tuple[int, int, int, int, int]:
    """Return wide integers of n times 1, the mask of a word, 0 to n - 1, and what is added to the key's words."""
    ones = int.from_bytes((b"\1" + bytes(7)) * n, "little")
    numbers = int.from_bytes(b"".join(i.to_bytes(8, "little") for i in range(n)), "little")
    return ones, ones * MASK, numbers, ones * WEYL[0], ones * WEYL[1]


def pair(first: int, second: int, device: torch.device, dims: int = 0) -> Tensor:
    """Return a tensor of two integers, of shape (2,) and `dims` further axes of length 1.

    Made by `arange` and not from data: a trace then holds an operation that runs anywhere, not a constant tensor, which
    fake tensors refuse and a CUDA graph would have to copy from the host.

    >>> pair(5, 3, torch.device("cpu"))
    tensor([5, 3])
    """
    if first == second:
        return torch.full((2,) + (1,) * dims, first, device=device)
    step = second - first
    both = torch.arange(first, second + (1 if step > 0 else -1), step, device=device)
    return both.view((2,) + (1,) * dims) if dims else both


def counters(number: Tensor, dims: int = 0) -> Tensor:
    """Return the `even` words of the counters of these int64 numbers: the low and the high half, in a new first axis.

    >>> counters(torch.tensor(2**32 + 5))
    tensor([5, 1])
    """
    return (number >> pair(0, 32, number.device, dims)) & MASK


def blocks(key: Tensor, even: Tensor, odd: Tensor) -> tuple[Tensor, Tensor]:
    """Return the blocks of many counters, as `even` and `odd` words, by pure tensor operations.

    Args:
        key: the words of the key, shape (2, ...).
        even: words 0 and 2 of the counters, shape (2, ...).
        odd: words 1 and 3 of the counters, shape (2, ...).

    Returns:
        Words 0 and 2, and words 1 and 3; above its lower 32 bits, the second has anything.

    >>> zero = torch.zeros(2, dtype=torch.int64)
    >>> [f"{int(word) & MASK:x}" for word in torch.cat(blocks(zero, zero, zero))]
    ['6627e8d5', 'bc57ac4c', 'e169c58d', '9b00dbd8']
    """
    dims, device = even.dim() - 1, even.device
    multipliers, weyl = pair(*MULTIPLIERS, device, dims), pair(*WEYL, device, dims)
    shift, mask = torch.full((), 32, device=device), torch.full((), MASK, device=device)
    for turn in range(ROUNDS):
        if turn:
            key = key + weyl  # what overflows 32 bits goes at the mask
        product = (even * multipliers).flip(0)
        even = ((product >> shift) ^ odd ^ key) & mask
        odd = product
    return even, odd


def round_keys(key: Tensor) -> list[Tensor]:
    """Return the ten keys of the rounds of `blocks_in_place`, each of shape (2, 1), in the order that it needs.

    >>> round_keys(torch.tensor([1, 2]))[0]
    tensor([[2],
            [1]])
    """
    return list(((key[_ORDER.to(key.device)] + _WEYL.to(key.device)) & MASK).unsqueeze(-1).unbind())


# In place, the rows are not flipped: they change places at every round, and with them multipliers and keys.
_ORDER = torch.tensor([(1, 0), (0, 1)] * (ROUNDS // 2))
_WEYL = torch.tensor([[turn * WEYL[column] for column in ((1, 0), (0, 1))[turn % 2]] for turn in range(ROUNDS)])
_MULTIPLIERS = torch.tensor([MULTIPLIERS, MULTIPLIERS[::-1]]).unsqueeze(-1)


def blocks_in_place(keys: list[Tensor], start: int, domain: int, words: Tensor, spare: Tensor) -> None:
    """Write the blocks of the counters `start`, `start` + 1... into a buffer.

    Args:
        keys: the `round_keys`.
        start: the number of the first block: words 0 and 2 of its counter.
        domain: word 3 of every counter; word 1 is 0.
        words: the buffer to write, int64 (4, n), in the order of words 0, 2, 1, 3.
        spare: a buffer for what is between, int64 (2, n).

    >>> words, spare = torch.empty(4, 1, dtype=torch.int64), torch.empty(2, 1, dtype=torch.int64)
    >>> blocks_in_place(round_keys(torch.tensor([0, 0])), 0, 0, words, spare)
    >>> [f"{int(word):x}" for word in words]
    ['6627e8d5', 'bc57ac4c', 'e169c58d', '9b00dbd8']
    """
    even, odd = words[:2], words[2:]
    first, second = even.unbind()
    shift, mask = torch.tensor(32), torch.tensor(MASK)  # a tensor saves the wrapping of a number at each use
    multipliers = _MULTIPLIERS.to(words.device).unbind() * (ROUNDS // 2)
    done = 0
    if start + words.shape[1] <= 1 << 32:
        _first_two_rounds(keys, start, domain, even, odd)
        done = 2
    else:
        torch.arange(start, start + words.shape[1], out=second)
        torch.bitwise_and(second, MASK, out=first)
        second.bitwise_right_shift_(32)
        odd[0].fill_(0)
        odd[1].fill_(domain)
    # A product becomes the odd words that the next round reads, and may then be overwritten.
    product, before = (spare, *spare.unbind()), (odd, *odd.unbind())
    for key, multiplier in zip(keys[done:], multipliers[done:], strict=True):
        torch.mul(even, multiplier, out=product[0])
        torch.bitwise_right_shift(product[0], shift, out=even)
        first.bitwise_xor_(before[2])
        second.bitwise_xor_(before[1])
        even.bitwise_xor_(key).bitwise_and_(mask)
        product, before = before, product
    odd.bitwise_and_(mask)


def _first_two_rounds(keys: list[Tensor], start: int, domain: int, even: Tensor, odd: Tensor) -> None:
    """Write what two rounds make of counters whose words 1 and 2 are 0. Half of it is the same for all."""
    (word0, word2), (word1, word3) = even.unbind(), odd.unbind()
    torch.arange(start, start + even.shape[1], out=word0)
    torch.mul(word0, MULTIPLIERS[0], out=word3)
    torch.bitwise_right_shift(word3, 32, out=word2)
    word2.bitwise_xor_(keys[0][0] ^ domain).bitwise_and_(MASK)
    torch.mul(word2, MULTIPLIERS[1], out=word1)
    torch.bitwise_right_shift(word1, 32, out=word0)
    word0.bitwise_xor_(keys[1][0]).bitwise_and_(MASK)
    same = keys[0][1] * MULTIPLIERS[0]
    torch.bitwise_xor(word3, (same >> 32) ^ keys[1][1], out=word2)
    word2.bitwise_and_(MASK)
    word3.copy_(same)
