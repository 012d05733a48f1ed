"""Buffers for the blocks of draws of some hundreds, kept from draw to draw with all the views that their rounds need.

At such a size an operation costs its call and not its work, so there are as few as can be, 25 for ten rounds. A product
is written as 64 bits and read as its two words, which saves the shift and the mask: words are written into the lower
halves of a buffer whose upper halves stay zero. A key is put on a whole product at once: on its upper word the key of
this round, on its lower word that of the next, so every second round needs none.
"""

from collections.abc import Callable
from typing import Any

import torch

from functrain.dispatch_contexts import below_autograd
from functrain.random.philox import MASK, MULTIPLIERS, ROUNDS, WEYL

_MOST = 1 << 15
"""The number of blocks for which workspaces are kept, of all sizes together: 4 MB."""

_free: dict[int, list["Workspace"]] = {}
"""The number of blocks -> workspaces that nobody uses. A draw takes one out, so no two ever share one: neither two
threads, nor a draw and one in the handler of a signal in its midst. What an exception leaves out is made anew."""


def with_blocks(n: int, domain: int, key: tuple[int, int], use: Callable[["Workspace"], Any]) -> Any:
    """Return what a function makes of the blocks of the counters 0 to n - 1.

    Args:
        n: the number of blocks.
        domain: word 3 of every counter; words 1 and 2 are 0.
        key: the two words of the key.
        use: the function. It must not return memory of the workspace, which the next draw overwrites.

    >>> [f"{word & MASK:x}" for word in with_blocks(1, 0, (0, 0), lambda made: made.words.tolist())]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    try:
        workspace = _free[n].pop()
    except (KeyError, IndexError):
        workspace = _new(n)
    workspace.compute(key, domain)
    made = use(workspace)
    _free.setdefault(n, []).append(workspace)
    return made


def _new(n: int) -> "Workspace":
    if sum(list(_free)) + n > _MOST:
        _free.clear()
    _free.setdefault(n, [])
    return Workspace(n)


class Workspace:
    """The buffers for some number of blocks.

    Rows are named by the word that is multiplied: row 0 of an even round holds what comes of word 0, and row 1 what
    comes of word 2; in odd rounds it is the other way round. A product stands twice in its buffer, one below the other,
    so that its rows 1 and 2 are the two in reverse.

    Args:
        n: the number of blocks.

    Attributes:
        words: the words of the blocks one after another, int32 (4 * n,).
        halves: the same memory as int16 (8 * n,).
    """

    def __init__(self, n: int) -> None:
        with torch.inference_mode(False):
            numbers = torch.arange(n, device="cpu") * MULTIPLIERS[0]
            self._low, self._high = numbers & MASK, (numbers >> 32) & MASK
            self._one = torch.empty(n, dtype=torch.int64, device="cpu")
            self._set_words(n)
            self._set_scalars()
            self._set_rounds(n)

    def _set_words(self, n: int) -> None:
        self.words = torch.empty(4 * n, dtype=torch.int32, device="cpu")
        self.halves = self.words.view(torch.int16)
        self._results = self.words.as_strided((2, n), (2, 4), 0), self.words.as_strided((2, n), (2, 4), 1)

    def _set_scalars(self) -> None:
        self._memory = bytearray(8 * 11)
        scalars = torch.frombuffer(self._memory, dtype=torch.int64)
        self._for_one, self._for_low = scalars.unbind()[:2]
        self._for_high = scalars.view(torch.int32)[4]
        self._keys = scalars[3:].view(4, 2, 1).unbind()
        self._second = torch.tensor(MULTIPLIERS[1], device="cpu")
        self._multipliers = torch.tensor([MULTIPLIERS, MULTIPLIERS[::-1]], device="cpu").unsqueeze(-1).unbind()

    def _set_rounds(self, n: int) -> None:
        before = torch.zeros(2, n, dtype=torch.int64, device="cpu")
        even = torch.zeros(2, n, dtype=torch.int64, device="cpu")
        self._factors = even.expand(2, 2, n)
        products = torch.empty(2, 2, 2, n, dtype=torch.int64, device="cpu").unbind()
        words = [product.view(4, n).view(torch.int32).view(4, n, 2) for product in products]
        into, of_one = even.view(torch.int32).view(2, n, 2)[:, :, 0], before.view(torch.int32).view(2, n, 2)
        self._product_of_one, self._upper_of_one = before[1], of_one[1, :, 1]
        self._first, self._third = into[0], even[1]
        uppers, lowers = [w[:2, :, 1] for w in words], [w[1:3, :, 0] for w in words]
        self._rounds = [
            (
                products[turn % 2],
                self._multipliers[turn % 2],
                None if turn % 2 else self._keys[turn // 2 - 1],
                uppers[turn % 2],
                lowers[turn % 2 - 1] if turn > 2 else of_one[:, :, 0],
                into if turn < ROUNDS - 1 else self._results[0],
            )
            for turn in range(2, ROUNDS)
        ]
        self._last = words[1][:2, :, 0]

    def compute(self, key: tuple[int, int], domain: int) -> None:
        """Write the blocks."""
        self._memory[:] = _scalars(*key, domain)
        with below_autograd():
            # Two rounds, of which the first is almost nothing, as words 1 and 2 are 0; a part of the second is the same
            # for all, and stands in a key.
            torch.bitwise_xor(self._high, self._for_one, out=self._one)
            torch.mul(self._one, self._second, out=self._product_of_one)
            torch.bitwise_xor(self._upper_of_one, self._for_high, out=self._first)
            torch.bitwise_xor(self._low, self._for_low, out=self._third)
            factors = self._factors
            for product, multipliers, keys, upper, lower, into in self._rounds:
                torch.mul(factors, multipliers, out=product)
                if keys is not None:
                    product.bitwise_xor_(keys)
                torch.bitwise_xor(upper, lower, out=into)
            self._results[1].copy_(self._last)


def _lanes(words: dict[int, int]) -> int:
    return sum(word << 64 * lane for lane, word in words.items())


_TURNS = range(2, ROUNDS, 2)
# Of each second round two lanes of 64 bits: for the row of word 0 the second word of the key, and then the first.
_SECOND, _FIRST = (_lanes({turn - 2 + row: 1 for turn in _TURNS}) for row in (0, 1))
_NOW, _NEXT = (
    _lanes({turn - 2 + row: (turn + more) * WEYL[1 - row] for turn in _TURNS for row in (0, 1)}) for more in (0, 1)
)
_MASKS = (_SECOND | _FIRST) * MASK


def _scalars(first: int, second: int, domain: int) -> bytes:
    """Return what the words are combined with: of the first two rounds three, and the keys of the others."""
    same = first * MULTIPLIERS[0]
    keys = second * _SECOND + first * _FIRST
    keys = (keys + _NOW & _MASKS) << 32 | keys + _NEXT & _MASKS
    keys ^= (same & MASK) << 32
    third, after = (same >> 32) ^ (second + WEYL[1] & MASK), first + WEYL[0] & MASK
    return (second ^ domain | third << 64 | after << 128 | keys << 192).to_bytes(88, "little")
