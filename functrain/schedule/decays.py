"""The schedules of long runs: a warm-up, a plateau, and a decay."""

import math
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import arguments
from functrain.errors import InvalidArgument
from functrain.schedule.cycles import Shape
from functrain.schedule.hyper import Number, Schedule, is_number
from functrain.schedule.phases import join
from functrain.schedule.shapes import constant, cosine, linear
from functrain.schedule.stairs import check_factor


def warmup_stable_decay(
    peak: float, end: float = 0.0, warmup: float = 0.01, decay: float = 0.2, start: float = 0.0, shape: Shape = linear
) -> Schedule:
    """Return the schedule that rises on a line, stays, and falls at the end (WSD, the trapezoid).

    Args:
        peak: the value between rise and fall.
        end: the value at position 1.
        warmup: the fraction of the time that the rise takes, in [0, 1).
        decay: the fraction of the time that the fall takes, in (0, 1]; the two leave the rest to the plateau.
        start: the value at position 0.
        shape: (peak, end) -> the schedule of the fall: `linear`, `cosine`, `exponential` for an end above 0, or the
            1 - sqrt of Haegele et al., which is `lambda peak, end: reverse(polynomial(end, peak, 0.5))`.

    Raises:
        InvalidArgument: warmup or decay is out of range, or they sum to more than 1.

    References: Hu et al., MiniCPM, 2024 (arXiv:2404.06395), section 4; Haegele et al., Scaling laws and compute-optimal
    training beyond fixed training durations, 2024 (arXiv:2405.18392).

    >>> trapezoid = warmup_stable_decay(1.0, warmup=0.1, decay=0.5)
    >>> trapezoid(0.05), trapezoid(0.1), trapezoid(0.5), trapezoid(0.75), trapezoid(1.0)
    (0.5, 1.0, 1.0, 0.5, 0.0)
    """
    _check_part("warmup", warmup, 0.0)
    if not is_number(decay) or not 0 < decay <= 1:
        raise InvalidArgument(f"decay must be a fraction of the time in (0, 1], got {decay!r}")
    stable = 1.0 - warmup - decay
    if stable < -1e-9:
        raise InvalidArgument(f"warmup and decay must sum to at most 1, got {warmup:g} + {decay:g}")
    phases = [(warmup, linear(start, peak)), (stable, constant(peak)), (decay, shape(peak, end))]
    kept = [(part, phase) for part, phase in phases if part > 1e-9]
    return join([part for part, _ in kept], [phase for _, phase in kept])


def flat_cosine(start: float, end: float = 0.0, part: float = 0.75) -> Schedule:
    """Return the schedule that stays, and then falls on half a cosine, as fastai's `fit_flat_cos`.

    Args:
        start: the value before the fall.
        end: the value at position 1.
        part: the fraction of the time before the fall, in [0, 1).

    Raises:
        InvalidArgument: part is outside [0, 1).

    >>> fall = flat_cosine(1.0, part=0.5)
    >>> fall(0.0), fall(0.5), round(fall(0.75), 12), fall(1.0)
    (1.0, 1.0, 0.5, 0.0)
    """
    _check_part("part", part, 0.0)
    return join([part, 1.0 - part], [constant(start), cosine(start, end)]) if part else cosine(start, end)


def inverse_sqrt(peak: float, part: float, start: float = 0.0) -> Schedule:
    """Return the schedule that rises on a line, and then falls as 1 / sqrt(position).

    Over n updates of which the first m warm up, it is `over_updates(n, inverse_sqrt(peak, m / n))`: in update t, peak *
    t / m and then peak * sqrt(m / t).

    Args:
        peak: the value where the rise ends.
        part: the fraction of the time that the rise takes, in (0, 1).
        start: the value at position 0.

    Raises:
        InvalidArgument: part is outside (0, 1), or peak or start is no finite number.

    See also: `noam`, the same in the numbers of the Transformer's paper, and without an end.

    >>> fall = inverse_sqrt(1.0, part=0.25)
    >>> fall(0.125), fall(0.25), fall(1.0)
    (0.5, 1.0, 0.5)
    """
    if not is_number(part) or not 0 < part < 1:
        raise InvalidArgument(f"part must be a fraction of the time in (0, 1), got {part!r}")
    return join([part, 1.0 - part], [linear(start, peak), Schedule(_InverseSqrt(peak, part))])


def noam(width: int, warmup: int, factor: float = 1.0) -> Schedule:
    """Return the schedule of the Transformer's paper: factor * width^-0.5 * min(t^-0.5, t * warmup^-1.5).

    t is the number of the update, 1 in the first. It reads the updates themselves, so it has no end, and is evaluated
    by `value`.

    Args:
        width: the width of the model, d_model.
        warmup: the number of updates that the rise takes, at least 1.
        factor: a factor of all, positive.

    Raises:
        InvalidArgument: width or warmup is no whole number of at least 1, or factor is not positive.

    Reference: Vaswani et al., Attention is all you need, NeurIPS 2017, section 5.3.

    >>> from functrain.schedule import Progress, value
    >>> [value(noam(width=1, warmup=4), Progress(updates=done)) for done in (0, 3, 15)]
    [0.125, 0.5, 0.25]
    """
    for name, number in (("width", width), ("warmup", warmup)):
        arguments.whole(name, number)
    check_factor("factor", factor)
    return Schedule(_Noam(width, warmup, factor), "progress")


def _check_part(name: str, part: Any, least: float) -> None:
    if not is_number(part) or not least <= part < 1:
        raise InvalidArgument(f"{name} must be a fraction of the time in [0, 1), got {part!r}")


@attrs.frozen
class _InverseSqrt:
    """peak * sqrt(part / t), where t goes from part to 1 as the position goes from 0 to 1."""

    peak: float
    part: float

    def __call__(self, position: Number) -> Number:
        ratio = self.part / (self.part + position * (1.0 - self.part))
        return self.peak * (ratio.sqrt() if isinstance(ratio, Tensor) else math.sqrt(ratio))


@attrs.frozen
class _Noam:
    width: int
    warmup: int
    factor: float

    @property
    def updates_to_show(self) -> float:
        return 8.0 * self.warmup

    def __call__(self, progress: Any) -> Number:
        scale, t = self.factor * self.width**-0.5, progress.updates + 1
        if isinstance(t, Tensor):
            t = t.double()
            return scale * torch.minimum(t.rsqrt(), t * self.warmup**-1.5)
        return scale * min(t**-0.5, t * self.warmup**-1.5)

    def __repr__(self) -> str:
        return f"noam({self.width}, {self.warmup}, {self.factor:g})"
