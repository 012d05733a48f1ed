"""Schedules that jump: constant between milestones, each of which is in force in the very step that it names."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.errors import InvalidArgument
from functrain.records import reprs
from functrain.schedule.hyper import Number, Schedule, is_number
from functrain.schedule.phases import as_tuple, check_by_position, join, slack
from functrain.schedule.shapes import constant, endpoint


def piecewise_constant(milestones: Sequence[float], values: Sequence[Number]) -> Schedule:
    """Return the schedule that is constant between milestones.

    Args:
        milestones: positions in (0, 1), ascending; step m of n is m / n. From each on, the next value is in force.
        values: one more than milestones: the value before the first, and after each.

    Raises:
        InvalidArgument: the milestones do not ascend within (0, 1), or the values are not one more.

    >>> drops = piecewise_constant([0.5, 0.75], [0.1, 0.01, 0.001])
    >>> drops(0.49), drops(0.5), drops(0.75), drops(1.0)
    (0.1, 0.01, 0.001, 0.001)
    """
    values = as_tuple("values", values)
    edges = check_milestones(milestones)
    check_as_many("values", len(values), len(edges) + 1, "one more than milestones")
    return join(widths((0.0, *edges, 1.0)), [constant(each) for each in values])


def multistep(start: float, milestones: Sequence[float], factor: float = 0.1) -> Schedule:
    """Return the schedule that is multiplied by a factor at each milestone, as torch's MultiStepLR.

    Args:
        start: the value before the first milestone.
        milestones: positions in (0, 1), ascending; step m of n is m / n. A position that comes twice counts twice.
        factor: positive.

    Raises:
        InvalidArgument: the milestones do not ascend within (0, 1), or factor is not positive.

    >>> drops = multistep(1.0, [0.5, 0.75], factor=0.5)
    >>> drops(0.49), drops(0.5), drops(1.0)
    (1.0, 0.5, 0.25)
    """
    check_factor("factor", factor)
    begin: Any = endpoint("start", start)
    places = as_tuple("milestones", milestones)
    edges = sorted(set(places))
    counts = itertools.accumulate((places.count(edge) for edge in edges), initial=0)
    return piecewise_constant(edges, [begin * factor**count for count in counts])


def staircase(stairs: float, schedule: Schedule) -> Schedule:
    """Return a schedule that holds its value on each of some equal stairs.

    Args:
        stairs: how many stairs the whole time has, at least 1; with a fraction the last is shorter. Of n updates, a
            stair of m has n / m stairs.
        schedule: what is looked at where each stair begins, a schedule by position; its end only at position 1, and
            not there where the last stair is cut short.

    Raises:
        InvalidArgument: stairs is below 1, or the schedule is none by position.

    >>> from functrain.schedule import linear
    >>> stepped = staircase(4, linear(0.0, 1.0))
    >>> stepped(0.2), stepped(0.25), stepped(0.6), stepped(1.0)
    (0.0, 0.25, 0.5, 1.0)
    """
    if not is_number(stairs) or not 1 <= stairs < math.inf:
        raise InvalidArgument(f"stairs must be a number of at least 1, got {stairs!r}")
    check_by_position("schedule", schedule)
    return Schedule(_Staircase(stairs, schedule))


def step(start: float, every: float, factor: float = 0.1) -> Schedule:
    """Return the schedule that is multiplied by a factor in equal times, as torch's StepLR.

    Args:
        start: the value at position 0.
        every: the fraction of the time between two drops, in (0, 1]; every m of n updates is m / n.
        factor: positive.

    Raises:
        InvalidArgument: every is outside (0, 1], factor is not positive, or the last value is too large for a number.

    See also: `multistep`, whose drops are where you say; `staircase`, which makes stairs of any schedule.

    >>> drops = step(1.0, every=0.25, factor=0.5)
    >>> drops(0.0), drops(0.2), drops(0.25), drops(0.5), drops(1.0)
    (1.0, 1.0, 0.5, 0.25, 0.0625)
    """
    if not is_number(every) or not 0 < every <= 1:
        raise InvalidArgument(f"every must be a fraction of the time in (0, 1], got {every!r}")
    check_factor("factor", factor)
    if math.log(factor) / every > 700:
        raise InvalidArgument(f"step: a factor of {factor:g} every {every:g} of the time leaves the range of numbers")
    return Schedule(_Steps(constant(start).f(0.0), every, factor))


def check_milestones(milestones: Sequence[float]) -> tuple[float, ...]:
    """Return milestones after checking that they are positions that ascend.

    >>> check_milestones([0.3, 0.6])
    (0.3, 0.6)
    """
    edges = as_tuple("milestones", milestones)
    for edge in edges:
        if not is_number(edge) or not 0 < edge < 1:
            raise InvalidArgument(
                f"milestones must be positions in (0, 1), fractions of the time (step m of n is m / n), got {edge!r}"
            )
    if any(b - a <= slack(a) for a, b in itertools.pairwise(edges)):
        raise InvalidArgument(f"milestones must ascend, got {list(edges)!r}")
    return edges


def check_as_many(name: str, count: int, wanted: int, why: str) -> None:
    """Raise `InvalidArgument` unless a count is what it must be.

    >>> check_as_many("values", 3, 3, "one more than milestones")
    """
    if count != wanted:
        raise InvalidArgument(f"{name} must be {wanted}, {why}, got {count}")


def check_factor(name: str, factor: Any) -> None:
    """Raise `InvalidArgument` unless a factor is positive and finite.

    >>> check_factor("factor", 0.5)
    """
    if not is_number(factor) or not 0 < factor < math.inf:
        raise InvalidArgument(f"{name} must be a positive number, got {factor!r}")


def widths(edges: Sequence[float]) -> list[float]:
    """Return the distances between neighbours.

    >>> widths([0.0, 0.25, 1.0])
    [0.25, 0.75]
    """
    return [b - a for a, b in itertools.pairwise(edges)]


@attrs.frozen(repr=False)
class _Staircase:
    stairs: float
    schedule: Schedule

    def __call__(self, position: Number) -> Number:
        return self.schedule.f(floor(position * self.stairs, self.stairs * slack(position)) / self.stairs)

    def __repr__(self) -> str:
        return f"staircase({self.stairs:g}, {reprs.short(self.schedule)})"


@attrs.frozen
class _Steps:
    start: Any
    every: float
    factor: float

    def __call__(self, position: Number) -> Number:
        # Not the start times the whole factor to a part of it, which would be 0 after some hundred drops.
        return self.start * self.factor ** floor(position / self.every, slack(position) / self.every)

    def __repr__(self) -> str:
        return f"step({self.start:g}, {self.every:g}, {self.factor:g})"


def floor(number: Number, miss: float) -> Number:
    """Return the whole number below, where a number that misses one by a rounding error counts as it.

    >>> floor(2.9999999999999996, 1e-10), floor(torch.tensor([0.5, 3.0]), 1e-6)
    (3.0, tensor([0., 3.]))
    """
    return torch.floor(number + miss) if isinstance(number, Tensor) else float(math.floor(number + miss))
