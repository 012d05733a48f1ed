"""Schedules that go up and down: one cycle, restarts, triangles."""

import math
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import arguments
from functrain.errors import InvalidArgument
from functrain.schedule.hyper import Number, Schedule, is_number
from functrain.schedule.phases import join, slack
from functrain.schedule.shapes import cosine, endpoint, exponential
from functrain.schedule.stairs import check_factor, floor, step

Shape = Callable[[float, float], Schedule]


def one_cycle(
    start: float, peak: float, end: float, part: float = 0.3, shape: Shape = cosine, back: float | None = None
) -> Schedule:
    """Return the schedule that rises to a peak and falls to a low end, both on a cosine.

    The rise lets the first, roughest steps be small; the high rate in the middle regularises; the long fall fine-tunes.
    For momentum the same shape upside down goes with it: `one_cycle(0.95, 0.85, 0.95)`.

    Args:
        start: the value at position 0.
        peak: the value when `part` of the time is over.
        end: the value at position 1.
        part: the fraction of the time that the rise takes, in (0, 1).
        shape: (start, end) -> the schedule of each phase: `cosine`, `linear`, or one of your own.
        back: None for two phases; or the fraction of the time, in (part, 1), after which it is back at `start`, and a
            third phase goes on from there to `end`, as in the paper.

    Raises:
        InvalidArgument: part is outside (0, 1), or back outside (part, 1).

    Reference: Smith, A disciplined approach to neural network hyper-parameters: Part 1, 2018 (arXiv:1803.09820),
    section 4.1, which goes up and down on straight lines; the cosines are fastai's.

    >>> lesson = one_cycle(0.3, 0.6, 0.2)
    >>> lesson(0.0), lesson(0.3), lesson(1.0)
    (0.3, 0.6, 0.2)
    """
    if not is_number(part) or not 0 < part < 1:
        raise InvalidArgument(f"part must be a fraction of the time in (0, 1), got {part!r}")
    if back is None:
        return join([part, 1.0 - part], [shape(start, peak), shape(peak, end)])
    if not is_number(back) or not part < back < 1:
        raise InvalidArgument(f"back must be a fraction of the time in (part, 1), here ({part:g}, 1), got {back!r}")
    phases = [shape(start, peak), shape(peak, start), shape(start, end)]
    return join([part, back - part, 1.0 - back], phases)


def cosine_restarts(
    start: float, end: float = 0.0, cycles: int = 1, growth: float = 1.0, decay: float = 1.0
) -> Schedule:
    """Return the schedule that falls on half a cosine again and again (SGDR, warm restarts).

    Args:
        start: the value where the first cycle begins.
        end: the value towards which each cycle falls; the last one reaches it.
        cycles: how many cycles, at least 1.
        growth: how many times longer each cycle is than the one before, positive. A first cycle of m updates takes
            m * (1 + growth + growth^2 + ...) in all.
        decay: the factor of the start of each cycle to that of the one before, positive.

    Raises:
        InvalidArgument: cycles is no whole number of at least 1, or growth or decay is not positive.

    Reference: Loshchilov and Hutter, SGDR: Stochastic gradient descent with warm restarts, ICLR 2017, section 3.

    >>> falls = cosine_restarts(1.0, 0.0, cycles=2, growth=3.0)
    >>> falls(0.0), falls(0.125), falls(0.25), falls(1.0)
    (1.0, 0.5, 1.0, 0.0)
    """
    arguments.whole("cycles", cycles)
    check_factor("growth", growth)
    check_factor("decay", decay)
    first = endpoint("start", start)
    lengths = [growth**cycle for cycle in range(cycles)]
    falls = [cosine(first * decay**cycle, end) for cycle in range(cycles)]
    return join([length / math.fsum(lengths) for length in lengths], falls)


def triangular(low: float, high: float, cycles: float = 1, part: float = 0.5) -> Schedule:
    """Return the schedule that rises and falls on straight lines, again and again, as torch's CyclicLR.

    Args:
        low: the value where each cycle begins and ends.
        high: the value at its peak.
        cycles: how many cycles the whole time has, at least 1; with a fraction the last is cut off.
        part: the fraction of a cycle that the rise takes, in (0, 1).

    Raises:
        InvalidArgument: cycles is below 1, part is outside (0, 1), or low or high is no finite number.

    Reference: Smith, Cyclical learning rates for training neural networks, WACV 2017 (arXiv:1506.01186), section 3.

    See also: `triangular2` and `exp_range`, whose peaks get lower.

    >>> waves = triangular(0.0, 1.0, cycles=2)
    >>> [waves(p) for p in (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)]
    [0.0, 0.5, 1.0, 0.0, 1.0, 0.0]
    """
    if not is_number(cycles) or not 1 <= cycles < math.inf:
        raise InvalidArgument(f"cycles must be a number of at least 1, got {cycles!r}")
    if not is_number(part) or not 0 < part < 1:
        raise InvalidArgument(f"part must be a fraction of a cycle in (0, 1), got {part!r}")
    return Schedule(_Triangles(_check_finite("low", low), _check_finite("high", high), cycles, part))


def triangular2(low: float, high: float, cycles: float = 1, part: float = 0.5) -> Schedule:
    """Return the triangular schedule whose height halves after each cycle; the arguments are those of `triangular`.

    >>> waves = triangular2(0.0, 1.0, cycles=2)
    >>> waves(0.25), waves(0.5), waves(0.75)
    (1.0, 0.0, 0.5)
    """
    waves = _height(low, high, cycles, part)
    return low + waves * step(1.0, 1 / cycles, 0.5)


def exp_range(low: float, high: float, cycles: float = 1, part: float = 0.5, decay: float = 0.1) -> Schedule:
    """Return the triangular schedule whose height decays exponentially.

    Args:
        low: the value where each cycle begins and ends.
        high: the value of the peaks, did they not decay.
        cycles: how many cycles the whole time has, at least 1.
        part: the fraction of a cycle that the rise takes, in (0, 1).
        decay: by what the height is multiplied over the whole time, positive; torch's gamma ** n for n updates.

    Raises:
        InvalidArgument: an argument is out of range.

    >>> waves = exp_range(0.0, 1.0, cycles=1, decay=0.01)
    >>> waves(0.0), round(waves(0.5), 12), waves(1.0)
    (0.0, 0.1, 0.0)
    """
    check_factor("decay", decay)
    return _check_finite("low", low) + _height(low, high, cycles, part) * exponential(1.0, decay)


def _height(low: float, high: float, cycles: float, part: float) -> Schedule:
    return triangular(0.0, _check_finite("high", high) - _check_finite("low", low), cycles, part)


def _check_finite(name: str, number: Any) -> float:
    if not is_number(number) or math.isinf(number):
        raise InvalidArgument(f"{name} must be a finite number, got {number!r}")
    return float(number)


@attrs.frozen
class _Triangles:
    low: float
    high: float
    cycles: float
    part: float

    def __call__(self, position: Any) -> Number:
        turns: Any = position * self.cycles
        within: Any = turns - floor(turns, self.cycles * slack(position))
        up, down = within / self.part, (1.0 - within) / (1.0 - self.part)
        if isinstance(position, Tensor):
            height = torch.minimum(up, down).clamp(0.0, 1.0)
        else:
            height = min(max(min(up, down), 0.0), 1.0)
        return self.low + height * (self.high - self.low)

    def __repr__(self) -> str:
        return f"triangular({self.low:g}, {self.high:g}, {self.cycles:g}, {self.part:g})"
