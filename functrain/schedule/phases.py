"""Phases one after another, and clocks that count updates or epochs."""

import itertools
import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import foreign
from functrain.errors import InvalidArgument
from functrain.records import reprs
from functrain.schedule.hyper import Schedule, is_number, is_readable
from functrain.schedule.shapes import linear


@attrs.frozen(repr=False)
class _Phases:
    """Schedules one after another; phase i runs from edges[i] to edges[i + 1]."""

    parts: tuple[float, ...]
    schedules: tuple[Schedule, ...]
    edges: tuple[float, ...]

    def __call__(self, position):
        if not isinstance(position, Tensor) or (position.dim() == 0 and is_readable(position)):
            return self._at_number(position)
        # Which phase it is may not steer Python here, so every phase is computed and one chosen.
        chosen, miss = self._in_phase(0, position), slack(position)
        for i, start in enumerate(self.edges[1:-1], 1):
            chosen = torch.where(position >= start - miss, self._in_phase(i, position), chosen)
        return chosen

    def _at_number(self, position):
        i, miss = 0, slack(position)
        while i + 1 < len(self.schedules) and position >= self.edges[i + 1] - miss:
            i += 1
        return self._in_phase(i, position)

    def _in_phase(self, i, position):
        start, end = self.edges[i], self.edges[i + 1]
        here = (position - start) / (end - start)
        return self.schedules[i].f(here.clamp(0.0, 1.0) if isinstance(here, Tensor) else min(max(here, 0.0), 1.0))

    def __repr__(self):
        return f"join({list(self.parts)!r}, [{', '.join(map(reprs.short, self.schedules))}])"


def slack(position: Any) -> float:
    """Return by how much a position may miss an edge that it stands for.

    Neither 0.1 + 0.2 nor m / n is exact, so the step in which a phase begins may be a rounding error before its edge;
    the step before is farther away than this in any run of up to a million steps, in float64 of a billion.

    >>> slack(0.3), slack(torch.tensor(0.3)) < 1e-6
    (1e-10, True)
    """
    if isinstance(position, Tensor) and position.dtype != torch.float64:
        return min(torch.finfo(position.dtype).eps * 4, 1e-3) if position.is_floating_point() else 0.0
    return 1e-10


def join(parts: Sequence[float], schedules: Sequence[Schedule]) -> Schedule:
    """Return the schedules one after another, each whole schedule over its part of the time.

    Where two phases meet, the later one counts, exactly: a phase that begins when m of n steps are done is in force at
    position m / n. The end of the last phase is given exactly.

    Args:
        parts: the fraction of the time that each phase takes, positive, with the sum 1 (to 1e-6).
        schedules: as many schedules as parts, by position (none of `over_updates` or `over_epochs`).

    Raises:
        InvalidArgument: the parts are not positive, do not sum to one, or are not as many as the schedules; or
            something among the schedules is no schedule by position.

    >>> from functrain.schedule import cosine
    >>> phases = join([0.3, 0.7], [cosine(0.3, 0.6), cosine(0.6, 0.2)])
    >>> phases(0.0), phases(0.3), phases(1.0)
    (0.3, 0.6, 0.2)
    """
    parts, schedules = as_tuple("parts", parts), as_tuple("schedules", schedules)
    if not parts or len(parts) != len(schedules):
        raise InvalidArgument(
            f"join needs one part for each schedule and at least one, got {len(parts)} parts and "
            f"{len(schedules)} schedules"
        )
    for i, part in enumerate(parts):
        if not is_number(part) or not part > 0:
            raise InvalidArgument(f"parts[{i}] must be a positive fraction of the time, got {part!r}")
    if abs(math.fsum(parts) - 1.0) > 1e-6:
        raise InvalidArgument(f"parts must sum to 1, got {list(parts)!r} with the sum {math.fsum(parts):.9g}")
    for i, schedule in enumerate(schedules):
        check_by_position(f"schedules[{i}]", schedule)
    edges = (0.0, *itertools.accumulate(parts[:-1]), 1.0)
    return Schedule(_Phases(parts, schedules, edges))


def as_tuple(name: str, values: Any) -> tuple:
    """Return a list as a tuple, after checking that it is one; `name` is the argument's.

    >>> as_tuple("milestones", [0.3, 0.6])
    (0.3, 0.6)
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidArgument(f"{name} must be a list, got {reprs.short(values)}")
    return tuple(values)


def check_by_position(name: str, schedule: Any) -> None:
    """Raise `InvalidArgument` unless this is a schedule by position; `name` is the argument's.

    >>> check_by_position("schedule", linear(0, 1))
    """
    if not isinstance(schedule, Schedule):
        raise InvalidArgument(
            f"{name} must be a Schedule, got {reprs.short(schedule)}{foreign.way_in(schedule)}; "
            "a fixed value is schedule.constant(value)"
        )
    if schedule.clock == "progress":
        raise InvalidArgument(
            f"{name} must be a schedule by position, got {schedule}, which looks at several clocks; compose the "
            "schedules by position first, and combine the clocks last"
        )
    if schedule.clock != "position":
        raise InvalidArgument(
            f"{name} must be a schedule by position, got {schedule}; put over_{schedule.clock} outside, "
            f"as in over_{schedule.clock}(n, join(...))"
        )


def warmup(part: float, schedule: Schedule, start: float = 0.0) -> Schedule:
    """Return a schedule with a linear rise (or fall) before it, from `start` to where it begins.

    Args:
        part: the fraction of the time that the warm-up takes, in [0, 1); the whole schedule runs in what is left.
        schedule: what follows, a schedule by position.
        start: the value at position 0.

    Raises:
        InvalidArgument: part is outside [0, 1), or the schedule is none by position.

    Reference: Goyal et al., Accurate, large minibatch SGD: Training ImageNet in 1 hour, 2017, section 2.2.

    >>> from functrain.schedule import cosine
    >>> warm = warmup(0.1, cosine(0.5, 0.0))
    >>> warm(0.0), warm(0.05), warm(0.1), warm(1.0)
    (0.0, 0.25, 0.5, 0.0)
    """
    check_by_position("schedule", schedule)
    if not is_number(part) or not 0 <= part < 1:
        raise InvalidArgument(f"part must be a fraction of the time in [0, 1), got {part!r}")
    return join([part, 1.0 - part], [linear(start, schedule(0.0)), schedule]) if part else schedule


def over_updates(n: int, schedule: Schedule) -> Schedule:
    """Return a schedule that runs over the first n updates of the parameters, and then holds its end value.

    Updates are counted from 0 and only completed ones count: the first update is made with the value at position 0,
    and the one after n completed updates with the end value.

    Args:
        n: the number of updates, at least 1.
        schedule: what runs over them, a schedule by position.

    Raises:
        InvalidArgument: n is no positive whole number, or the schedule is none by position.

    >>> from functrain.schedule import Progress, value
    >>> rise = over_updates(100, linear(0.0, 0.5))
    >>> [value(rise, Progress(updates=done)) for done in (0, 50, 100, 1000)]
    [0.0, 0.25, 0.5, 0.5]
    """
    if not isinstance(n, numbers.Integral) or isinstance(n, bool) or n < 1:
        raise InvalidArgument(f"n must be a positive whole number of updates, got {n!r}")
    check_by_position("schedule", schedule)
    return Schedule(schedule.f, "updates", int(n))


def over_epochs(n: float, schedule: Schedule) -> Schedule:
    """Return a schedule that runs over the first n epochs, and then holds its end value.

    Args:
        n: the number of epochs, positive; it may have a fraction.
        schedule: what runs over them, a schedule by position.

    Raises:
        InvalidArgument: n is no positive number, or the schedule is none by position.

    >>> from functrain.schedule import Progress, value
    >>> rise = over_epochs(2, linear(0.0, 0.5))
    >>> [value(rise, Progress(epoch=done)) for done in (0.0, 0.5, 2.0, 9.0)]
    [0.0, 0.125, 0.5, 0.5]
    """
    if not is_number(n) or not 0 < n < math.inf:
        raise InvalidArgument(f"n must be a positive number of epochs, got {n!r}")
    check_by_position("schedule", schedule)
    return Schedule(schedule.f, "epochs", float(n))
