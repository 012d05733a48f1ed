"""Draws of numbers on a continuum, and the bits under them."""

from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from functrain.errors import InvalidArgument
from functrain.random.keys import check_one, is_concrete
from functrain.random.kinds import between
from functrain.random.reuse import note_use
from functrain.random.stream import Shape, check_fits, check_shape, draw

_WIDE = (torch.float64, torch.float32)
_FLOATS = (*_WIDE, torch.float16, torch.bfloat16)

_SQRT_TWO = 2.0**0.5
_SQRT_HALF = 0.5**0.5


def bits(key: Tensor, shape: Shape = ()) -> Tensor:
    """Return random words: integers from 0 to 2**32 - 1, all equally likely.

    Args:
        key: a single key, shape (2,). It is used up.
        shape: the shape of the result.

    Returns:
        The words, int64 of this shape, on the key's device.

    Raises:
        InvalidKey: the key is none.
        InvalidArgument: the shape is none.

    >>> from functrain import random
    >>> bits(random.key(0), (3,))
    tensor([3013899833, 3448206205, 2063724643])
    """
    shape = check_shape(shape)
    note_use(check_one(key), "bits")
    return draw(key, shape, "words", [], torch.int64)


def uniform(
    key: Tensor,
    shape: Shape = (),
    low: float | Tensor = 0.0,
    high: float | Tensor = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return draws from the uniform distribution on [low, high); `high` itself is never drawn.

    A number has as many random bits as the fraction of its dtype, 53 or 24; the two dtypes of 16 bits are rounded from
    float32, to what is nearest between the limits. Their own grid from 0 to 1 would be half a step off the centre.

    Args:
        key: a single key, shape (2,). It is used up.
        shape: the shape of the result.
        low: the lower limit, a number or a tensor that broadcasts to the shape.
        high: the upper limit, likewise.
        dtype: a floating-point dtype.

    Returns:
        The draws, of this shape and dtype, on the key's device.

    Raises:
        InvalidKey: the key is none.
        InvalidArgument: low is not below high, a limit is not finite, or the shape or the dtype is none that fits.
        ShapeMismatch: a limit does not broadcast to the shape.

    >>> from functrain import random
    >>> uniform(random.key(0), (2, 2), -1.0, 1.0)
    tensor([[ 0.4035,  0.6057],
            [-0.0390, -0.2334]])
    """
    shape = check_shape(shape)
    check_floating(dtype)
    note_use(check_one(key), "uniform")
    if type(low) is type(high) is float and (low, high) == (0.0, 1.0) and dtype in _WIDE:  # quickly, as is usual
        return draw(key, shape, "fraction", [], dtype)
    first, last = limits = _limits(low, high, shape, dtype, key.device)
    _check_width(low, high, limits)
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        return between(draw(key, shape, "fraction", [], first.dtype), first, last, dtype)
    return draw(key, shape, "uniform", [float(low), float(high)], dtype)


def normal(key: Tensor, shape: Shape = (), dtype: torch.dtype = torch.float32) -> Tensor:
    """Return draws from the normal distribution of mean 0 and standard deviation 1.

    The method is inversion: the inverse of the distribution function, of a uniform draw of 24 bits (53 for float64)
    that is never 0 or 1. So no draw is infinite; the largest are 5.42 (8.29 for float64).

    Args:
        key: a single key, shape (2,). It is used up.
        shape: the shape of the result.
        dtype: a floating-point dtype; the two of 16 bits are rounded from float32.

    Returns:
        The draws, of this shape and dtype, on the key's device.

    Raises:
        InvalidKey: the key is none.
        InvalidArgument: the shape or the dtype is none that fits.

    >>> from functrain import random
    >>> normal(random.key(0), (3,))
    tensor([ 0.5294,  0.8518, -0.0489])
    """
    shape = check_shape(shape)
    check_floating(dtype)
    note_use(check_one(key), "normal")
    # Not in chunks: this function uses threads for little, and to wait for them once for each chunk costs far more.
    signed = draw(key, shape, "signed", [], torch.promote_types(dtype, torch.float32))
    return (torch.erfinv(signed) * _SQRT_TWO).to(dtype)


def truncated_normal(
    key: Tensor,
    shape: Shape = (),
    low: float | Tensor = -2.0,
    high: float | Tensor = 2.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return draws from the normal distribution of mean 0 and standard deviation 1, given that they are in [low, high).

    The method is inversion, in float64 and in the lower tail, so that limits far out (above 5, below -5) serve too.

    Args:
        key: a single key, shape (2,). It is used up.
        shape: the shape of the result.
        low: the lower limit, a number or a tensor that broadcasts to the shape; -inf for none.
        high: the upper limit, likewise; inf for none.
        dtype: a floating-point dtype.

    Returns:
        The draws, of this shape and dtype, on the key's device.

    Raises:
        InvalidKey: the key is none.
        InvalidArgument: low is not below high, or so far out that nothing lies between, or the shape or the dtype is
            none that fits.
        ShapeMismatch: a limit does not broadcast to the shape.

    >>> from functrain import random
    >>> truncated_normal(random.key(0), (3,), low=1.0)
    tensor([1.1844, 1.1176, 1.3528])
    """
    shape = check_shape(shape)
    check_floating(dtype)
    note_use(check_one(key), "truncated_normal")
    cut = _truncation(*(limit.to(dtype) for limit in _limits(low, high, shape, dtype, key.device)))
    return cut(draw(key, shape, "open", [], dtype))


def check_floating(dtype: Any) -> None:
    """Raise `InvalidArgument` unless draws of numbers can have this dtype."""
    if dtype not in _FLOATS:
        raise InvalidArgument(f"dtype must be one of {', '.join(map(str, _FLOATS))}, got {dtype}")


def _limits(low: Any, high: Any, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """Return both limits as tensors, in float32 for shorter dtypes, checked as far as their values are at hand."""
    working, both = torch.promote_types(dtype, torch.float32), []
    for name, limit in (("low", low), ("high", high)):
        if not isinstance(limit, Real | Tensor) or isinstance(limit, bool):
            raise InvalidArgument(f"{name} must be a number or a tensor, got {limit!r} of type {type(limit).__name__}")
        if isinstance(limit, Tensor):
            check_fits(name, limit.shape, shape)
            both.append(limit.to(device, working))
        else:
            both.append(torch.full((), float(limit), dtype=working, device=device))
    numbers = isinstance(low, Real) and isinstance(high, Real)  # whose values are there in a trace too
    there = all(map(is_concrete, both))
    ordered = bool((both[0].to(dtype) < both[1].to(dtype)).all()) if there else not numbers or low < high
    if not ordered:
        raise InvalidArgument(f"low must be below high in {dtype}, got low={_brief(low)} and high={_brief(high)}")
    return both


def _check_width(low: Any, high: Any, limits: list[Tensor]) -> None:
    width = limits[1] - limits[0]
    finite = bool(torch.isfinite(width).all()) if is_concrete(width) else True
    if not finite or (
        isinstance(low, Real) and isinstance(high, Real) and float(high) - float(low) > torch.finfo(width.dtype).max
    ):
        raise InvalidArgument(
            f"high - low must be finite in {width.dtype}, got low={_brief(low)} and high={_brief(high)}"
        )


def _brief(limit: Any) -> str:
    return f"{limit.tolist()}" if isinstance(limit, Tensor) and limit.numel() <= 4 else f"{limit!r:.100}"


def _truncation(low: Tensor, high: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the function that takes float64 from (0, 1) to the normal distribution between the limits."""
    last = torch.nextafter(high.detach(), low.detach())
    # Probabilities near 1 have no digits left to tell them apart, those near 0 have: above 0, draw the negative.
    sign = torch.where(low > 0, -1.0, 1.0).to(torch.float64)
    ends = (
        -_SQRT_HALF * torch.where(low > 0, -high, low).double(),
        -_SQRT_HALF * torch.where(low > 0, -low, high).double(),
    )
    below, above = (0.5 * torch.erfc(end) for end in ends)
    if is_concrete(above) and not bool((below < above).all()):
        raise InvalidArgument(f"no probability is left between low={_brief(low)} and high={_brief(high)}")
    width = above - below

    def cut(fraction: Tensor) -> Tensor:
        draws = sign * torch.special.ndtri(below + width * fraction)
        return torch.minimum(torch.maximum(draws.to(low.dtype), low), last)

    return cut
