"""Schedules from a schedule: moved in time, backwards, held between limits; and through points."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.errors import InvalidArgument
from functrain.records import reprs
from functrain.schedule.cycles import Shape
from functrain.schedule.hyper import Number, Schedule, is_number
from functrain.schedule.phases import as_tuple, check_by_position, join
from functrain.schedule.shapes import linear
from functrain.schedule.stairs import check_as_many, check_milestones, widths


def interpolate(milestones: Sequence[float], values: Sequence[float], shape: Shape = linear) -> Schedule:
    """Return the schedule through values at milestones.

    Args:
        milestones: positions in (0, 1), ascending; step m of n is m / n.
        values: two more than milestones: at position 0, at each milestone, and at position 1.
        shape: (start, end) -> the schedule between two of them: `linear`, `cosine`, or one of your own.

    Raises:
        InvalidArgument: the milestones do not ascend within (0, 1), or the values are not two more.

    See also: `piecewise_constant`, which jumps.

    >>> broken = interpolate([0.25], [0.0, 1.0, 0.5])
    >>> broken(0.125), broken(0.25), broken(0.625), broken(1.0)
    (0.5, 1.0, 0.75, 0.5)
    """
    values, edges = as_tuple("values", values), check_milestones(milestones)
    check_as_many("values", len(values), len(edges) + 2, "two more than milestones")
    return join(widths((0.0, *edges, 1.0)), [shape(a, b) for a, b in itertools.pairwise(values)])


def shift(part: float, schedule: Schedule) -> Schedule:
    """Return a schedule that begins later, or is under way already, and is not stretched.

    Args:
        part: by what fraction of the time it begins later, in (-1, 1). Before it begins, the schedule's first value is
            in force, and what would come after position 1 is cut off; if it is negative, the last value is held.
        schedule: a schedule by position.

    Raises:
        InvalidArgument: part is outside (-1, 1), or the schedule is none by position.

    See also: `join`, in which a schedule takes what time is left.

    >>> later = shift(0.25, linear(0.0, 1.0))
    >>> later(0.0), later(0.25), later(0.5), later(1.0)
    (0.0, 0.0, 0.25, 0.75)
    """
    if not is_number(part) or not -1 < part < 1:
        raise InvalidArgument(f"part must be a fraction of the time in (-1, 1), got {part!r}")
    check_by_position("schedule", schedule)
    return Schedule(_Shifted(part, schedule))


def reverse(schedule: Schedule) -> Schedule:
    """Return a schedule backwards: its end comes first.

    fastai's `SchedPoly(start, end, power)`, slow at first and fast at last, is
    `reverse(polynomial(end, start, power))`.

    Args:
        schedule: a schedule by position.

    Raises:
        InvalidArgument: the schedule is none by position.

    >>> from functrain.schedule import polynomial
    >>> late = reverse(polynomial(1.0, 0.0, 2))
    >>> late(0.0), late(0.5), late(1.0)
    (0.0, 0.25, 1.0)
    """
    check_by_position("schedule", schedule)
    return Schedule(_Reversed(schedule))


def clip(minimum: float | None, maximum: float | None, schedule: Schedule) -> Schedule:
    """Return a schedule held between limits.

    Args:
        minimum: the smallest value, None for no limit.
        maximum: the largest value, None for no limit.
        schedule: any schedule; the result has its clock.

    Raises:
        InvalidArgument: both limits are None, a limit is no number, or they are in the wrong order; or the schedule is
            none.

    >>> from functrain.schedule import exponential
    >>> clip(0.05, None, exponential(1.0, 0.01))(1.0)
    0.05
    """
    limits = [limit for limit in (minimum, maximum) if limit is not None]
    if not limits or not all(is_number(limit) for limit in limits) or limits[0] > limits[-1]:
        raise InvalidArgument(
            f"clip needs a minimum, a maximum, or both in this order, got {minimum!r} and {maximum!r}"
        )
    if not isinstance(schedule, Schedule):
        check_by_position("schedule", schedule)
    return attrs.evolve(schedule, f=_Clipped(minimum, maximum, schedule))


@attrs.frozen(repr=False)
class _Shifted:
    part: float
    schedule: Schedule

    def __call__(self, position: Number) -> Number:
        moved = position - self.part
        return self.schedule.f(moved.clamp(0.0, 1.0) if isinstance(moved, Tensor) else min(max(moved, 0.0), 1.0))

    def __repr__(self) -> str:
        return f"shift({self.part:g}, {reprs.short(self.schedule)})"


@attrs.frozen(repr=False)
class _Reversed:
    schedule: Schedule

    def __call__(self, position: Number) -> Number:
        return self.schedule.f(1.0 - position)

    def __repr__(self) -> str:
        return f"reverse({reprs.short(self.schedule)})"


@attrs.frozen(repr=False)
class _Clipped:
    minimum: float | None
    maximum: float | None
    schedule: Schedule

    def __call__(self, at: Any) -> Number:
        number = self.schedule.f(at)
        if isinstance(number, Tensor):
            return torch.clamp(number, self.minimum, self.maximum)
        low = -math.inf if self.minimum is None else self.minimum
        return float(min(max(number, low), math.inf if self.maximum is None else self.maximum))

    def __repr__(self) -> str:
        return f"clip({self.minimum!r}, {self.maximum!r}, {reprs.short(self.schedule.f)})"
