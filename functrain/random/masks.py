"""Draws of what is kept: truth values, and the mask of dropout, of 16 random bits an element."""

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from functrain.errors import InvalidArgument
from functrain.random.drawing import MIDDLE
from functrain.random.draws import check_floating
from functrain.random.keys import check_one, is_concrete
from functrain.random.reuse import note_use
from functrain.random.stream import Shape, check_fits, check_shape, draw
from functrain.random.stream import bernoulli as below_limit


def bernoulli(key: Tensor, p: float | Tensor = 0.5, shape: Shape | None = None) -> Tensor:
    """Return truth values that are true with probability p.

    The probability is rounded to a multiple of 2**-48. One that is a multiple of 2**-16 costs least, everywhere: 16
    random bits an element. So does any other on a CPU; elsewhere, and under `vmap`, it costs three times as much.

    Args:
        key: a single key, shape (2,). It is used up.
        p: the probability, from 0 (never) to 1 (always): a number, or a tensor that broadcasts to the shape.
        shape: the shape of the result; by default that of p.

    Returns:
        The truth values, bool of this shape, on the key's device. What is true at some p is true at each larger one.

    Raises:
        InvalidKey: the key is none.
        InvalidArgument: p is not from 0 to 1 (a tensor is looked at where its value is at hand), or the shape is none.
        ShapeMismatch: p does not broadcast to the shape.

    >>> from functrain import random
    >>> bernoulli(random.key(0), 0.6, (4,))
    tensor([False,  True, False,  True])
    """
    if shape is None:
        shape = tuple(p.shape) if isinstance(p, Tensor) else ()
    shape = check_shape(shape)
    _check_probability(p)
    check_fits("p", getattr(p, "shape", ()), shape)
    note_use(check_one(key), "bernoulli")
    if not isinstance(p, Tensor):
        return below_limit(key, shape, round(float(p) * 2**48))
    exact = p.to(key.device, torch.promote_types(p.dtype, torch.float32))
    return below_limit(key, shape, (exact * 2.0**48).round().to(torch.int64))


def _check_probability(p: Any) -> None:
    if isinstance(p, Tensor):
        if p.is_floating_point() and not (is_concrete(p) and not bool(((p >= 0) & (p <= 1)).all())):
            return
        got = f"{p.dtype} from {p.min()} to {p.max()}" if is_concrete(p) and p.numel() else f"{p.dtype}"
        raise InvalidArgument(f"p must be floating-point probabilities from 0 to 1, got a tensor of {got}")
    if isinstance(p, bool) or not (isinstance(p, Real) and 0 <= float(p) <= 1):
        raise InvalidArgument(f"p must be a probability from 0 to 1, got {p!r}")


def dropout_mask(key: Tensor, rate: float | Tensor, shape: Shape, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return what dropout multiplies by: 0 with probability `rate`, else 1 / (1 - rate), so that the mean is 1.

    The probability of keeping is rounded to a multiple of 2**-16, from 2**-16 to 1, and what is kept is divided by that
    very number. Nothing is dropped at a rate below 2**-17. In float16 the least is 2**-15, whose factor is finite.

    Args:
        key: a single key, shape (2,). It is used up.
        rate: a number of at least 0 and below 1, or a tensor of one such number.
        shape: the shape of the result.
        dtype: a floating-point dtype. In the two of 16 bits the factor is rounded, and the mean with it.

    Returns:
        The mask, of this shape and dtype, on the key's device.

    Raises:
        InvalidKey: the key is none.
        InvalidArgument: the rate is outside (a tensor is looked at where its value is at hand), or the shape or the
            dtype is none that fits.

    >>> from functrain import random
    >>> dropout_mask(random.key(0), 0.5, (4,))
    tensor([0., 2., 0., 2.])
    """
    shape = check_shape(shape)
    check_floating(dtype)
    _check_rate(rate)
    note_use(check_one(key), "dropout_mask")
    if isinstance(rate, Tensor):
        return _mask_of(key, rate, shape, dtype)
    kept = min(max(round((1.0 - float(rate)) * 2**16), _least(dtype)), 2**16)
    return draw(key, shape, "mask", [kept - MIDDLE, 2**16 / kept], dtype)


def _least(dtype: torch.dtype) -> int:
    # The largest factor is 2**16 over this, and 65504 is the largest number of float16.
    return 2 if dtype == torch.float16 else 1


def _mask_of(key: Tensor, rate: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    kept = ((1.0 - rate.to(key.device, torch.float64)) * 2.0**16).round().clamp(_least(dtype), 2**16)
    half = draw(key, shape, "halves", [], torch.int16).to(torch.int32)
    return (half < (kept - MIDDLE).to(torch.int32)).to(dtype) * (2.0**16 / kept).to(dtype)


def _check_rate(rate: Any) -> None:
    if type(rate) is float and 0.0 <= rate < 1.0:
        return
    if isinstance(rate, Tensor):
        if not (rate.is_floating_point() and rate.dim() == 0):
            got = f"{rate.dtype} of shape {tuple(rate.shape)}"
            raise InvalidArgument(f"rate must be a number or a floating-point tensor of one, got {got}")
        if not is_concrete(rate):
            return
    number = float(rate) if isinstance(rate, Real | Tensor) and not isinstance(rate, bool) else math.nan
    if not 0 <= number < 1:
        raise InvalidArgument(f"rate must be at least 0 and below 1, got {rate!r}")
