"""Samplers: which examples make up which batch, as pure functions of (key, epoch, step).

Nothing is iterated to reach a position, so a run that resumes at any step goes on with the same batches at once.

>>> sampler = sequential(batch_size=3)
>>> [indices(sampler, None, 10, 0, step).tolist() for step in range(steps_per_epoch(sampler, 10))]
[[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
"""

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import arguments, random
from functrain.errors import InvalidArgument
from functrain.records import reprs

REMAINDERS = ("keep", "drop", "pad")
"""What becomes of a last batch that is not full: a short batch, no batch, or one filled up with rows of zero weight."""

Order = Callable[[Tensor | None, int, int, int, int], Tensor]
"""A pure function (key, n, epoch, start, stop) -> the indices, int64, at the positions [start, stop) of an epoch."""

ROUNDS = 12
SMALL = 1024
"""Up to so many examples, `scatter` computes the whole permutation: cheap, and each order is equally likely."""
_LOW = 0xFFFFFFFF


def _check_batch_size(_sampler: Any, _attribute: Any, size: Any) -> None:
    arguments.whole("batch_size", size)


def _check_remainder(_sampler: Any, _attribute: Any, word: Any) -> None:
    if word not in REMAINDERS:
        raise InvalidArgument(f"remainder must be 'keep', 'drop' or 'pad', got {word!r}")


@attrs.frozen(repr=False)
class Sampler:
    """How an epoch is ordered and cut into batches; made by `sequential` and `shuffled`, or from an order of your own.

    Attributes:
        order: a pure function (key, n, epoch, start, stop) -> indices, see `Order`.
        batch_size: rows in a batch, at least 1.
        remainder: "keep" a last batch that is not full, "drop" it, or "pad" it with rows of zero weight.
        whole: whether an epoch's order is best computed at once, in O(n) memory, because a part costs as much.

    >>> shuffled(batch_size=64)
    shuffled(batch_size=64)
    """

    order: Order
    batch_size: int = attrs.field(validator=_check_batch_size)
    remainder: str = attrs.field(default="keep", validator=_check_remainder)
    whole: bool = False

    def __repr__(self) -> str:
        remainder = "" if self.remainder == "keep" else f", remainder={self.remainder!r}"
        orders = ((in_order, False, "sequential"), (permute, True, "shuffled"), (scatter, False, "shuffled"))
        names = [name for order, whole, name in orders if self.order is order and self.whole is whole]
        if not names:
            return reprs.record(self)
        in_memory = ", in_memory=False" if self.order is scatter else ""
        return f"{names[0]}(batch_size={reprs.short(self.batch_size)}{remainder}{in_memory})"


def sequential(batch_size: int, remainder: str = "keep") -> Sampler:
    """Return the sampler that takes the examples as they lie, the same in every epoch. It needs no key.

    Args:
        batch_size: rows in a batch, at least 1.
        remainder: what becomes of a last batch that is not full: "keep", "drop" or "pad", see `REMAINDERS`.

    Raises:
        InvalidArgument: the batch size is no positive integer, or the remainder is another word.

    >>> indices(sequential(batch_size=4, remainder="pad"), None, 6, epoch=0, step=1)
    tensor([4, 5, 5, 5])
    """
    return Sampler(in_order, batch_size, remainder)


def shuffled(batch_size: int, remainder: str = "keep", in_memory: bool = True) -> Sampler:
    """Return the sampler that takes the examples in a random order, another one in each epoch, each exactly once.

    Args:
        batch_size: rows in a batch, at least 1.
        remainder: what becomes of a last batch that is not full: "keep", "drop" or "pad", see `REMAINDERS`.
        in_memory: whether to hold the permutation of a whole epoch, 8 bytes an example. Without, the order comes
            from a keyed bijection (`scatter`), evaluated only where asked, for data of any size; above 1,024
            examples it is another order than with.

    Raises:
        InvalidArgument: the batch size is no positive integer, or the remainder is another word.

    >>> key = random.key(0)
    >>> sorted(indices(shuffled(batch_size=4), key, 4, epoch=0, step=0).tolist())
    [0, 1, 2, 3]
    """
    return Sampler(permute if in_memory else scatter, batch_size, remainder, whole=bool(in_memory))


def in_order(_key: Tensor | None, _n: int, _epoch: int, start: int, stop: int) -> Tensor:
    """Return the positions themselves: the order of `sequential`.

    >>> in_order(None, 10, 0, 4, 7)
    tensor([4, 5, 6])
    """
    return torch.arange(start, stop)


def permute(key: Tensor | None, n: int, epoch: int, start: int, stop: int) -> Tensor:
    """Return a part of a random permutation of 0..n-1, which is computed whole: the order of `shuffled` in memory.

    >>> len(set(permute(random.key(0), 10, 0, 0, 10).tolist()))
    10
    """
    return random.permutation(_epoch_key(key, epoch), n)[start:stop]


def scatter(key: Tensor | None, n: int, epoch: int, start: int, stop: int) -> Tensor:
    """Return a part of a pseudorandom permutation of 0..n-1 in O(stop - start) time and memory, for any n.

    The permutation is a Feistel network on the least power of two that holds n, with cycle walking: a value that is
    outside 0..n-1 goes through the network again until it is inside (J. Black and P. Rogaway, "Ciphers with arbitrary
    finite domains", CT-RSA 2002). The domain is less than twice n, so two passes a value are the most to be expected.

    On a power of two such a network is always an even permutation, and nearly always elsewhere; so a bit of the key
    says whether positions 0 and 1 change places first. On up to 1,024 examples, where a network is uneven, the whole
    permutation is computed, as by `permute`.

    >>> sorted(scatter(random.key(0), 2000, 0, 0, 2000).tolist()) == list(range(2000))
    True
    """
    if n <= SMALL:
        return permute(key, n, epoch, start, stop)
    *words, (spare, _) = random.split(_epoch_key(key, epoch), ROUNDS + 1).tolist()
    bits = (n - 1).bit_length()
    values = torch.arange(start, stop)
    if spare & 1:
        values = torch.where(values < 2, 1 - values, values)
    values = _feistel(values, bits, words)
    while True:
        outside = (values >= n).nonzero().squeeze(1)
        if len(outside) == 0:
            return values
        values[outside] = _feistel(values[outside], bits, words)


def _epoch_key(key: Tensor | None, epoch: int) -> Tensor:
    if key is None:
        raise InvalidArgument("a shuffled sampler needs a key; pass one, such as random.key(0)")
    return random.fold_in(random.check_key(key), epoch)


def _feistel(values: Tensor, bits: int, words: list[list[int]]) -> Tensor:
    """Return a keyed bijection on 0..2^bits - 1 of the values, one round for each pair of words.

    Each round changes one half by a function of the other, so it can be undone whatever the function is. The halves
    need not be equally wide, which keeps the domain small.
    """
    width = bits // 2
    left, right = values >> width, values & ((1 << width) - 1)
    for number, pair in enumerate(words):
        if number % 2:
            right = right ^ (_mix(left, *pair) & ((1 << width) - 1))
        else:
            left = left ^ (_mix(right, *pair) & ((1 << (bits - width)) - 1))
    return (left << width) | right


def _mix(value: Tensor, first: int, second: int) -> Tensor:
    """Return 32 bits in which each bit of the value and of the words plays a part: murmur3's finaliser, keyed.

    In int64, of which a product keeps the low 32 bits right even where it overflows.
    """
    h = (value ^ first) & _LOW
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & _LOW
    h = (h ^ second) & _LOW
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & _LOW
    return h ^ (h >> 16)


def steps_per_epoch(sampler: Sampler, n: int) -> int:
    """Return the number of batches that an epoch over n examples has.

    >>> [steps_per_epoch(sequential(3, remainder), 10) for remainder in REMAINDERS]
    [4, 3, 4]
    """
    return n // sampler.batch_size if sampler.remainder == "drop" else -(-n // sampler.batch_size)


def indices(sampler: Sampler, key: Tensor | None, n: int, epoch: int, step: int) -> Tensor:
    """Return the indices of the examples in one batch, without going through those before it.

    Args:
        sampler: the sampler.
        key: the random key of all epochs; None will do for `sequential`.
        n: the number of examples.
        epoch: the epoch, from 0.
        step: the batch in the epoch, from 0.

    Returns:
        int64, shape (batch_size,); shorter for the last batch under "keep". Under "pad", that batch is filled up with
        its last index, and `weights` says which rows count.

    Raises:
        InvalidArgument: the epoch has no such step.

    >>> indices(sequential(batch_size=3), None, 10, epoch=0, step=3)
    tensor([9])
    """
    check_range(sampler, n, epoch, step, step + 1)
    return fill_up(sampler, positions(sampler, key, n, epoch, step, step + 1))


def weights(sampler: Sampler, n: int, step: int) -> Tensor | None:
    """Return the weight of each row of one batch: float32, shape (batch_size,), 1 for an example and 0 for padding.

    None for a sampler that never pads n examples, so that all batches of an epoch have one structure.

    >>> weights(sequential(batch_size=4, remainder="pad"), 6, step=1)
    tensor([1., 1., 0., 0.])
    """
    if not pads(sampler, n):
        return None
    return (torch.arange(sampler.batch_size) < n - step * sampler.batch_size).float()


def pads(sampler: Sampler, n: int) -> bool:
    """Return whether the last batch over n examples is filled up with rows of zero weight.

    >>> pads(sequential(4, remainder="pad"), 6), pads(sequential(4, remainder="pad"), 8), pads(sequential(4), 6)
    (True, False, False)
    """
    return sampler.remainder == "pad" and n % sampler.batch_size != 0


def positions(sampler: Sampler, key: Tensor | None, n: int, epoch: int, start: int, stop: int) -> Tensor:
    """Return the indices of the examples in the batches [start, stop), in one row and without padding.

    >>> positions(sequential(3), None, 10, 0, 2, 4)
    tensor([6, 7, 8, 9])
    """
    size = sampler.batch_size
    return sampler.order(key, n, epoch, start * size, min(stop * size, n))


def check_range(sampler: Sampler, n: int, epoch: int, start: int, stop: int) -> None:
    """Raise `InvalidArgument` unless [start, stop) are steps of an epoch over n examples.

    >>> check_range(sequential(3), 10, 0, 0, 4)
    """
    steps = steps_per_epoch(sampler, n)
    for name, value in (("epoch", epoch), ("start", start), ("stop", stop)):
        arguments.whole(name, value, 0)
    if not start <= stop <= steps:
        raise InvalidArgument(f"steps {start} to {stop} are not in an epoch of {steps} steps ({n} examples)")


def fill_up(sampler: Sampler, rows: Tensor) -> Tensor:
    """Return indices that end with an epoch, filled up to whole batches with the last one where the sampler pads.

    >>> fill_up(sequential(4, remainder="pad"), torch.tensor([3, 5]))
    tensor([3, 5, 5, 5])
    """
    missing = -len(rows) % sampler.batch_size
    return fill(rows, missing) if sampler.remainder == "pad" and missing else rows


def fill(rows: Tensor, missing: int) -> Tensor:
    """Return the indices with the last one repeated `missing` times more.

    >>> fill(torch.tensor([3, 5]), 2)
    tensor([3, 5, 5, 5])
    """
    return torch.cat([rows, rows[-1:].expand(missing)])
