"""Draws of things to choose from: integers, orders, classes."""

import operator
from typing import Any

import torch
from torch import Tensor

from functrain.errors import InvalidArgument
from functrain.random.keys import check_one, is_concrete
from functrain.random.kinds import high_words, multiply_high, product_high
from functrain.random.philox import MASK
from functrain.random.reuse import note_use
from functrain.random.stream import Shape, check_fits, check_shape, draw


def randint(key: Tensor, shape: Shape, low: int | Tensor, high: int | Tensor) -> Tensor:
    """Return integers from low to high - 1, all equally likely.

    An element is `low` plus the whole part of `high - low` times a random fraction, of 64 bits, or of 128 for a range
    of 2**32 and more. So the probabilities of two integers differ by one part in 2**32 at most.

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
    low, high = _range(low, high, shape)
    note_use(check_one(key), "randint")
    if isinstance(low, int) and isinstance(high, int):
        if high - low <= _NARROW:
            return draw(key, shape, "randint", [low, high], torch.int64)
        return _product(_wide(key, shape, 0), _wide(key, shape, 1), high - low) + low
    low, high = (torch.as_tensor(limit, device=key.device) for limit in (low, high))
    size, first = high - low, _wide(key, shape, 0)
    narrow = _high(size) == 0  # not by comparing: as an integer with sign, a size of 2**63 and more is negative
    return torch.where(narrow, _high_half(first, size), _product(first, _wide(key, shape, 1), size)) + low


_NARROW = MASK
"""The widest range for which 64 random bits will do."""


def _wide(key: Tensor, shape: tuple[int, ...], lane: int) -> Tensor:
    return draw(key, shape, "wide", [], torch.int64, lane)


def _high(bits: Tensor) -> Tensor:
    return (bits >> 32) & MASK


def _high_half(bits: Tensor, size: int | Tensor) -> Tensor:
    return multiply_high(_high(bits), bits & MASK, size)


def _product(first: Tensor, second: Tensor, size: int | Tensor) -> Tensor:
    """Return the higher 64 of 192 bits: those of 128 bits, given as two halves, times a size of 64."""
    small, large = size & MASK, (size >> 32) & MASK
    high, low = _high(first), first & MASK
    below0 = low * small & MASK
    below1 = (product_high(low, small) + (low * large & MASK) + (high * small & MASK)) & MASK
    added1, added0 = high_words(_high(second), second & MASK, size)
    carried = (below1 + added1 + ((below0 + added0) >> 32)) >> 32
    return multiply_high(high, low, size) + carried


def _range(low: Any, high: Any, shape: tuple[int, ...]) -> tuple[int | Tensor, int | Tensor]:
    """Return the limits as Python's integers or tensors of 64 bits with sign, after checking them."""
    low, high = _integer("low", low, shape), _integer("high", high, shape)
    if all(not isinstance(limit, Tensor) or is_concrete(limit) for limit in (low, high)):
        ordered = low < high
        if not (bool(ordered.all()) if isinstance(ordered, Tensor) else ordered):
            raise InvalidArgument(f"low must be below high, got low={low} and high={high}")
    return low, high


def _integer(name: str, limit: Any, shape: tuple[int, ...]) -> int | Tensor:
    check_fits(name, getattr(limit, "shape", ()), shape)
    if isinstance(limit, Tensor):
        if not (limit.is_floating_point() or limit.is_complex() or limit.dtype is torch.bool):
            made = limit.to(torch.int64)
            if limit.dtype is not torch.uint64 or not is_concrete(limit) or bool((made >= 0).all()):
                return made
    elif not isinstance(limit, bool) and hasattr(limit, "__index__"):  # NumPy's integers have it too
        made = operator.index(limit)
        if -(2**63) <= made < 2**63:
            return made
    got = f"a tensor of {limit.dtype}" if isinstance(limit, Tensor) else repr(limit)
    raise InvalidArgument(f"{name} must be an integer of 64 bits with sign or a tensor of such, got {got}")


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
    order = _wide(key, (n,), 0).argsort(stable=True)
    return of.index_select(0, order.to(of.device)) if isinstance(of, Tensor) else order


def categorical(key: Tensor, logits: Tensor, shape: Shape | None = None, axis: int = -1) -> Tensor:
    """Return classes, each with the probability that the softmax of the logits along an axis gives it.

    The method is the Gumbel trick: the largest logit is taken off, noise -log(-log(1 - u)) is added to each, and the
    largest sum wins. In a trace or a transform, where a value cannot be looked at, what no class can be drawn from
    (see below) gives the number of classes, an index that no table of classes has.

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
    # Near a large logit floats are too far apart for the noise; near 0, where the largest come, they are not.
    below = last - last.amax(-1, keepdim=True)
    best, chosen = (below + _gumbel(key, (*shape, classes), last.dtype)).max(-1)
    drawable = torch.isfinite(best)
    if is_concrete(best) and not bool(drawable.all()):
        raise InvalidArgument(
            "the logits hold NaN or +inf, or nothing but -inf along the axis, so no class can be drawn"
        )
    return torch.where(drawable, chosen, classes)


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
    u = draw(key, shape, "small", [], torch.float64 if dtype is torch.float64 else torch.float32)
    return -torch.log(-torch.log1p(-u))
