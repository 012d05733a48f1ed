"""The shapes of schedules: formulas of (start, end, position), each made a factory of schedules by `annealer`."""

import inspect
import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.errors import InvalidArgument
from functrain.records import reprs
from functrain.schedule.hyper import Number, Schedule, is_number


@attrs.frozen(repr=False)
class _Annealed:
    """A formula with its arguments, as `functools.partial`; but equal, printed and pickled by what it holds."""

    factory: Any
    start: Number
    end: Number
    options: tuple

    def __call__(self, position):
        return self.factory.__wrapped__(self.start, self.end, position, *self.options)

    def __repr__(self):
        return f"{self.factory.__name__}({', '.join(reprs.short(v) for v in (self.start, self.end, *self.options))})"


@attrs.frozen(repr=False)
class _Constant:
    """The function of the position that is one value."""

    value: Number

    def __call__(self, position):
        return torch.zeros_like(position) + self.value if isinstance(position, Tensor) else self.value

    def __repr__(self):
        return f"constant({reprs.short(self.value)})"


def annealer(f: Callable[..., Number]) -> Callable[..., Schedule]:
    """Turn a formula f(start, end, position) into a function (start, end) -> Schedule. Use as a decorator.

    The result shows its own signature and the formula's docstring. Parameters after the position are options of the
    schedule, as in `polynomial`. The formula is tried at position 0 when a schedule is made, so that what it does not
    accept is known there.

    Args:
        f: gives the value at a position, which is a float or a tensor of any shape.

    Raises:
        InvalidArgument: f has no three parameters; or, later, start or end is no finite number.

    >>> @annealer
    ... def sqrt(start, end, position):
    ...     return start + position**0.5 * (end - start)
    >>> sqrt, sqrt(0.0, 2.0)(0.25)
    (<function sqrt at ...>, 1.0)
    >>> inspect.signature(sqrt)
    <Signature (start, end) -> functrain.schedule.hyper.Schedule>
    """
    parameters = list(inspect.signature(f).parameters.values())
    if len(parameters) < 3:
        raise InvalidArgument(
            f"annealer needs a function of (start, end, position), got {getattr(f, '__name__', f)!r} with "
            f"{len(parameters)} parameters; a function of the position alone goes into Schedule(f)"
        )
    signature = inspect.Signature(parameters[:2] + parameters[3:], return_annotation=Schedule)

    @wraps(f)
    def factory(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        start, end, *options = bound.args
        formula = _Annealed(factory, endpoint("start", start), endpoint("end", end), tuple(options))
        formula(0.0)
        return Schedule(formula)

    factory.__signature__ = signature  # pyright: ignore
    return factory


def endpoint(name: str, number: Any) -> Number:
    """Return a number between which a schedule goes, after checking that it is one.

    >>> endpoint("start", 1)
    1.0
    """
    if isinstance(number, Tensor):
        return number
    if not is_number(number) or math.isinf(number):
        raise InvalidArgument(f"{name} must be a finite number, got {number!r}")
    return float(number)


def _ending(end: Number, position: Number, before: Number) -> Number:
    """Return the value before the end, and exactly `end` there, which rounding would miss."""
    if isinstance(position, Tensor):
        return torch.where(position >= 1.0, end, before)
    return end if position >= 1.0 else before


def constant(value: Number) -> Schedule:
    """Return the schedule that stays at one value: no annealing.

    Args:
        value: the value at every position.

    >>> constant(0.3)(0.7)
    0.3
    """
    return Schedule(_Constant(endpoint("value", value)))


@annealer
def linear(start, end, position):
    """Return the schedule on a straight line: start + position * (end - start).

    Args:
        start: the value at position 0.
        end: the value at position 1.

    >>> linear(1, 2)(0.3)
    1.3
    """
    return _ending(end, position, start + position * (end - start))


@annealer
def cosine(start, end, position):
    """Return the schedule on half a cosine, flat at both ends: start + (1 - cos(pi * position)) / 2 * (end - start).

    Args:
        start: the value at position 0.
        end: the value at position 1.

    Reference: Loshchilov and Hutter, SGDR: Stochastic gradient descent with warm restarts, ICLR 2017, equation 5.

    >>> cosine(1.0, 0.0)(0.25)
    0.8535533905932737
    """
    turn = math.pi * position
    height = 1.0 - (torch.cos(turn) if isinstance(turn, Tensor) else math.cos(turn))
    return _ending(end, position, start + height * (0.5 * (end - start)))


@annealer
def exponential(start, end, position):
    """Return the schedule that changes by the same factor in equal times: start * (end / start) ** position.

    Args:
        start: the value at position 0, not 0.
        end: the value at position 1, not 0 and of the same sign.

    Raises:
        InvalidArgument: start or end is 0, or their signs differ.

    >>> exponential(1.0, 0.01)(0.5)
    0.1
    """
    if not isinstance(start, Tensor) and not isinstance(end, Tensor) and not start * end > 0:
        raise InvalidArgument(
            f"exponential needs a start and an end of one sign, neither of them 0, got start={start:g} and "
            f"end={end:g}; to go to 0, take cosine or linear, or a small end"
        )
    return _ending(end, position, start * (end / start) ** position)


@annealer
def polynomial(start, end, position, power):
    """Return the schedule on a power of what is left: start + (1 - (1 - position) ** power) * (end - start).

    Args:
        start: the value at position 0.
        end: the value at position 1.
        power: positive; above 1 it changes fast at first and slowly at last, 1 is a straight line. fastai's `poly`,
            start + position ** power * (end - start), is the mirror image of this one, which PyTorch and optax have.

    Raises:
        InvalidArgument: power is not positive.

    >>> polynomial(1.0, 0.0, power=2)(0.5)
    0.25
    """
    if not is_number(power) or not 0 < power < math.inf:
        raise InvalidArgument(f"power must be a positive number, got {power!r}")
    return _ending(end, position, start + (1.0 - (1.0 - position) ** power) * (end - start))
