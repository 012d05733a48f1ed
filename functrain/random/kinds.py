"""What a draw makes of random bits: for each kind, how many bits an element takes, and the pure function of them.

Such a function is called with one tensor of 32-bit words (int64 from 0 to 2**32 - 1), or with two, the next two of an
element; or with one of 16-bit integers with sign. It is called with parts of a draw in any order, or with the whole,
and returns new memory, but for words, which it may return as they are.
"""

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.random.philox import MASK


@attrs.frozen
class Kind:
    """How an element of a draw is made.

    Attributes:
        bits: how many random bits an element takes: 16, 32 or 64.
        finish: the function from them to values of the draw's dtype.
    """

    bits: int
    finish: Callable[..., Tensor]


def kind_of(name: str, numbers: list[Any], dtype: torch.dtype) -> Kind:
    """Return a kind of draw.

    Args:
        name: its name in `KINDS`.
        numbers: what it is a function of, besides the bits.
        dtype: that of the result.

    >>> kind_of("fraction", [], torch.float32).finish(torch.tensor([0, 2**31, 2**32 - 1]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    return KINDS[name](*numbers, dtype)


def _words(_: torch.dtype) -> Kind:
    return Kind(32, lambda word: word)


def _halves(_: torch.dtype) -> Kind:
    return Kind(16, lambda half: half.to(torch.int16, copy=True))


def _wide(_: torch.dtype) -> Kind:
    return Kind(64, lambda high, low: high << 32 | low)


def _fraction(dtype: torch.dtype) -> Kind:
    """From 0 to below 1, with as many bits as the fraction of the dtype holds, the leading one counted."""
    if dtype is torch.float64:
        return Kind(64, lambda high, low: (high << 21 | low >> 11).to(dtype) * 2.0**-53)
    return Kind(32, lambda word: (word >> 8).to(dtype) * 2.0**-24)


def _uniform(low: float, high: float, dtype: torch.dtype) -> Kind:
    working = torch.promote_types(dtype, torch.float32)
    fraction = _fraction(working)

    def finish(*words: Tensor) -> Tensor:
        first, last = (torch.full((), limit, dtype=working, device=words[0].device) for limit in (low, high))
        return between(fraction.finish(*words), first, last, dtype)

    return Kind(fraction.bits, finish)


def _open(dtype: torch.dtype) -> Kind:
    """Above 0 and below 1, in float64 whatever the dtype, which says how many bits there are: 25 or 53."""
    if dtype is torch.float64:
        return Kind(64, lambda high, low: (high << 21 | low >> 11 | 1).double() * 2.0**-53)
    return Kind(32, lambda word: (word >> 7 | 1).double() * 2.0**-25)


def _sign(dtype: torch.dtype) -> Kind:
    """Above -1 and below 1, and never 0."""
    if dtype is torch.float64:
        return Kind(64, lambda high, low: ((high << 22 | low >> 10 | 1) - 2**53).to(dtype) * 2.0**-53)
    return Kind(32, lambda word: ((word >> 7 | 1) - 2**24).to(dtype) * 2.0**-24)


def _small(dtype: torch.dtype) -> Kind:
    """Above 0 and below 1, with all the digits that a float has for what is near 0."""
    if dtype is torch.float64:
        return Kind(64, lambda high, low: (high << 21 | low >> 11 | 1).double() * 2.0**-53)
    return Kind(32, lambda word: (word.float() * 2.0**-32 + 2.0**-33).clamp(max=1 - 2.0**-24))


def _randint(low: int, high: int, _: torch.dtype) -> Kind:
    return Kind(64, lambda first, second: multiply_high(first, second, high - low) + low)


def _mask(limit: int, factor: float, dtype: torch.dtype) -> Kind:
    """The factor where 16 bits are below a limit, as integers with sign, and 0 elsewhere."""
    return Kind(16, lambda half: is_below(half, limit).to(dtype) * factor)


KINDS: dict[str, Callable[..., Kind]] = {
    "words": _words,
    "halves": _halves,
    "wide": _wide,
    "fraction": _fraction,
    "uniform": _uniform,
    "open": _open,
    "signed": _sign,
    "small": _small,
    "randint": _randint,
    "mask": _mask,
}


def is_below(half: Tensor, limit: int) -> Tensor:
    """Return where integers of 16 bits with sign are below a limit from -2**15 to 2**15.

    >>> is_below(torch.tensor([-(2**15), 2**15 - 1], dtype=torch.int16), 2**15)
    tensor([True, True])
    """
    return half <= limit - 1 if limit > 0 else half < limit  # each limit fits the 16 bits


def between(fraction: Tensor, low: Tensor, high: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what takes fractions from [0, 1) to [low, high), computed in their dtype and rounded to another.

    >>> between(torch.tensor([0.0, 0.25, 0.9999]), torch.tensor(-1.0), torch.tensor(1.0), torch.bfloat16)
    tensor([-1.0000, -0.5000,  0.9961], dtype=torch.bfloat16)
    """
    made = low + (high - low) * fraction
    low, high = low.detach(), high.detach()
    last = torch.nextafter(high.to(dtype), low.to(dtype))
    if low.dtype is not dtype:  # what is rounded to a shorter dtype may leave the limits at either end
        made, first = made.to(dtype), _above(low, last)
        made = torch.where(made < first, first, made)
    return torch.minimum(made, last)


def _above(low: Tensor, last: Tensor) -> Tensor:
    """Return the least number that is not below `low`, in the dtype of `last` and at most `last`."""
    near = low.to(last.dtype)
    return torch.minimum(torch.where(near.to(low.dtype) < low, torch.nextafter(near, near + 1), near), last)


def multiply_high(high: Tensor, low: Tensor, size: int | Tensor) -> Tensor:
    """Return the higher 64 bits of a 64-bit number, given as two words, times a size from 1 to 2**64 - 1.

    >>> multiply_high(torch.tensor(2**31), torch.tensor(0), 10)
    tensor(5)
    """
    if isinstance(size, int) and size <= 2**31:  # then no product or sum needs the sign bit
        return (high * size + (low * size >> 32)) >> 32
    upper, lower = high_words(high, low, size)
    return upper << 32 | lower


def high_words(high: Tensor, low: Tensor, size: int | Tensor) -> tuple[Tensor, Tensor]:
    """Return the same as two words.

    Compilers take it that integers with sign never run over, and leave out what would only matter if they did: so
    nothing is asked here of a product that needs all 64 bits but its lower half.

    >>> high_words(torch.tensor(2**31), torch.tensor(0), 10)
    (tensor(0), tensor(5))
    """
    small, large = size & MASK, (size >> 32) & MASK
    middle = product_high(low, small) + (high * small & MASK) + (low * large & MASK)
    lower = (high * large & MASK) + product_high(high, small) + product_high(low, large) + (middle >> 32)
    return product_high(high, large) + (lower >> 32), lower & MASK


def product_high(a: Tensor, b: int | Tensor) -> Tensor:
    """Return the higher word of the product of two words.

    >>> product_high(torch.tensor(2**32 - 1), 2**32 - 1).item() == 2**32 - 2
    True
    """
    return (a * (b >> 16) + (a * (b & 0xFFFF) >> 16)) >> 16
