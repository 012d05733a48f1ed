"""Draws of things to choose from: truth values, integers, orders, classes."""

import math
import struct
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from functrain.errors import InvalidArgument
from functrain.random.keys import check_one, is_concrete
from functrain.random.philox import MASK
from functrain.random.reuse import note_use
from functrain.random.stream import Shape, check_fits, check_shape, draw, draw_pairs


def bernoulli(key: Tensor, p: float | Tensor = 0.5, shape: Shape | None = None) -> Tensor:
    """Return truth values that are true with probability p.

    The probability is exact to 2**-24: an element is true when a draw of `uniform` from this key is below p in float32.

    Args:
        key: a single key, shape (2,). It is used up.
        p: the probability, from 0 (never) to 1 (always): a number, or a tensor that broadcasts to the shape.
        shape: the shape of the result; by default that of p.

    Returns:
        The truth values, bool of this shape, on the key's device.

    Raises:
        InvalidKey: the key is none.
        InvalidArgument: p is not from 0 to 1 (a tensor is looked at where its value is at hand), or the shape is none.
        ShapeMismatch: p does not broadcast to the shape.

    >>> from functrain import random
    >>> bernoulli(random.key(0), 0.6, (4,))
    tensor([False, False,  True,  True])
    """
    if shape is None:
        shape = tuple(p.shape) if isinstance(p, Tensor) else ()
    shape = check_shape(shape)
    _check_probability(p)
    check_fits("p", getattr(p, "shape", ()), shape)
    note_use(check_one(key), "bernoulli")
    if not isinstance(p, Tensor):
        limit = _threshold(float(p))
    else:
        limit = torch.ceil(p.to(key.device, torch.float32) * 2.0**24).to(torch.int64) << 8
        if limit.dim():
            return draw(key, shape, torch.int64, lambda word: word) < limit
    return draw(key, shape, torch.bool, lambda word: word < limit)


def _threshold(p: float) -> int:
    """Return the number of words, of 2**32, whose 24 higher bits are as a fraction below p in float32."""
    return math.ceil(struct.unpack("f", struct.pack("f", p))[0] * 2**24) << 8


def _check_probability(p: Any) -> None:
    if isinstance(p, Tensor):
        if p.is_floating_point() and not (is_concrete(p) and not bool(((p >= 0) & (p <= 1)).all())):
            return
        got = f"{p.dtype} from {p.min()} to {p.max()}" if is_concrete(p) and p.numel() else f"{p.dtype}"
        raise InvalidArgument(f"p must be floating-point probabilities from 0 to 1, got a tensor of {got}")
    if isinstance(p, bool) or not (isinstance(p, Real) and 0 <= float(p) <= 1):
        raise InvalidArgument(f"p must be a probability from 0 to 1, got {p!r}")


def randint(key: Tensor, shape: Shape, low: int | Tensor, high: int | Tensor) -> Tensor:
    """Return integers from low to high - 1, all equally likely.

    An element is `low` plus the higher 64 bits of the product of 64 random bits and `high - low`; so the probabilities
    of two integers differ by 2**-64 at most: a bias of less than one in four billion for a range below 2**32.

    Args:
        key: a single key, shape (2,). It is used up.
        shape: the shape of the result.
        low: the lowest integer that may come, a number or an integer tensor that broadcasts to the shape.
        high: one more than the highest, likewise.

    Returns:
        The integers, int64 of this shape, on the key's device.

    Raises:
        InvalidKey: the key is none.
        InvalidArgument: a limit is no integer of 64 bits with sign, low is not below high (tensors are looked at
            where their values are at hand), or the shape is none.
        ShapeMismatch: a limit does not broadcast to the shape.

    Reference: Lemire, Fast random integer generation in an interval, ACM TOMACS 2019, without its rejection.

    >>> from functrain import random
    >>> randint(random.key(0), (5,), 1, 7)
    tensor([5, 3, 5, 2, 6])
    """
    shape = check_shape(shape)
    _check_range(low, high, shape)
    note_use(check_one(key), "randint")
    if isinstance(low, int) and isinstance(high, int):
        size = high - low
        return draw_pairs(key, shape, torch.int64, lambda first, second: _multiply_high(first, second, size) + low)
    low, high = (torch.as_tensor(limit, dtype=torch.int64, device=key.device) for limit in (low, high))
    random = draw_pairs(key, shape, torch.int64, lambda first, second: first << 32 | second)
    return _multiply_high((random >> 32) & MASK, random & MASK, high - low) + low


def _check_range(low: Any, high: Any, shape: tuple[int, ...]) -> None:
    for name, limit in (("low", low), ("high", high)):
        if isinstance(limit, Tensor):
            whole = not (limit.is_floating_point() or limit.is_complex() or limit.dtype is torch.bool)
        else:
            whole = type(limit) is int and -(2**63) <= limit < 2**63
        if not whole:
            got = f"a tensor of {limit.dtype}" if isinstance(limit, Tensor) else repr(limit)
            raise InvalidArgument(f"{name} must be an integer of 64 bits or a tensor of integers, got {got}")
        check_fits(name, getattr(limit, "shape", ()), shape)
    if all(not isinstance(limit, Tensor) or is_concrete(limit) for limit in (low, high)):
        ordered = low < high
        if not (bool(ordered.all()) if isinstance(ordered, Tensor) else ordered):
            raise InvalidArgument(f"low must be below high, got low={low} and high={high}")


def _multiply_high(high: Tensor, low: Tensor, size: int | Tensor) -> Tensor:
    """Return the higher 64 bits of a 64-bit number, given as two words, times a size from 1 to 2**64 - 1."""
    if isinstance(size, int) and size <= 2**31:  # then no product or sum needs the sign bit
        return (high * size + (low * size >> 32)) >> 32
    small, large = size & MASK, (size >> 32) & MASK
    carried = high * small + ((low * small >> 32) & MASK)
    middle = low * large + (carried & MASK)
    return high * large + ((carried >> 32) & MASK) + ((middle >> 32) & MASK)


def permutation(key: Tensor, of: int | Tensor) -> Tensor:
    """Return a random order of 0 to n - 1, or of the rows of a tensor; all orders are equally likely.

    Each place gets 64 random bits, by which the places are sorted.

    Args:
        key: a single key, shape (2,). It is used up.
        of: n, or a tensor of at least one axis, whose first is permuted.

    Returns:
        The order, int64 of shape (n,), on the key's device; or the tensor with its rows in that order.

    Raises:
        InvalidKey: the key is none.
        InvalidArgument: `of` is neither an integer of at least 0 nor a tensor with an axis.

    >>> from functrain import random
    >>> permutation(random.key(0), 5)
    tensor([0, 2, 4, 3, 1])
    """
    n = of.shape[0] if isinstance(of, Tensor) and of.dim() else of
    if type(n) is not int or n < 0:
        got = "a tensor without axes" if isinstance(of, Tensor) else repr(of)
        raise InvalidArgument(f"a permutation is of an integer of at least 0 or of a tensor with an axis, got {got}")
    note_use(check_one(key), "permutation")
    order = draw_pairs(key, (n,), torch.int64, lambda first, second: first << 32 | second).argsort(stable=True)
    return of.index_select(0, order.to(of.device)) if isinstance(of, Tensor) else order


def categorical(key: Tensor, logits: Tensor, shape: Shape | None = None, axis: int = -1) -> Tensor:
    """Return classes, each with the probability that the softmax of the logits along an axis gives it.

    The method is the Gumbel trick: noise -log(-log(1 - u)) is added to each logit, and the largest sum wins.

    Args:
        key: a single key, shape (2,). It is used up.
        logits: logarithms of probabilities, up to a constant; floating-point. -inf is never drawn.
        shape: the shape of the result; by default that of the logits without the axis, which must broadcast to it.
        axis: the axis of the classes.

    Returns:
        The classes, int64 of this shape, on the key's device.

    Raises:
        InvalidKey: the key is none.
        InvalidArgument: logits are no floating-point tensor with classes along this axis; or they hold NaN, +inf or
            nothing but -inf along it (this is looked at where the value is at hand); or the shape is none.
        ShapeMismatch: the logits without the axis do not broadcast to the shape.

    Reference: Maddison, Tarlow and Minka, A* sampling, NeurIPS 2014.

    >>> from functrain import random
    >>> categorical(random.key(0), torch.tensor([0.5, 0.25, 0.25]).log(), (8,))
    tensor([0, 0, 1, 0, 0, 0, 0, 1])
    """
    last = _classes_last(logits, axis)
    batch, classes = tuple(last.shape[:-1]), last.shape[-1]
    shape = batch if shape is None else check_shape(shape)
    check_fits("logits, without the axis,", batch, shape)
    note_use(check_one(key), "categorical")
    noisy = last + _gumbel(key, (*shape, classes), last.dtype)
    best, chosen = noisy.max(-1)
    if is_concrete(best) and not bool(torch.isfinite(best).all()):
        raise InvalidArgument(
            "the logits hold NaN or +inf, or nothing but -inf along the axis, so no class can be drawn"
        )
    return chosen


def _classes_last(logits: Any, axis: int) -> Tensor:
    if not (isinstance(logits, Tensor) and logits.is_floating_point()):
        got = f"a tensor of {logits.dtype}" if isinstance(logits, Tensor) else type(logits).__name__
        raise InvalidArgument(f"logits must be a floating-point tensor, got {got}")
    if type(axis) is not int or not -logits.dim() <= axis < logits.dim() or logits.shape[axis] == 0:
        raise InvalidArgument(
            f"axis {axis!r} must hold the classes, at least one; logits have shape {tuple(logits.shape)}"
        )
    return logits.movedim(axis, -1)


def _gumbel(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    # Large noise, which decides, comes from small u: there, unlike near 1, floats are dense. u is never 0 or 1.
    if dtype is torch.float64:
        u = draw_pairs(key, shape, dtype, lambda high, low: (high << 21 | low >> 11 | 1).double() * 2.0**-53)
    else:
        u = draw(key, shape, torch.float32, lambda word: (word.float() * 2.0**-32 + 2.0**-33).clamp(max=1 - 2.0**-24))
    return -torch.log(-torch.log1p(-u))
