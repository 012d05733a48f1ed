"""The hyperparameter: a number, or a schedule that gives one for the progress of training."""

import math
import numbers
import operator
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import foreign, tree
from functrain.dispatch_state import is_plain
from functrain.errors import InvalidArgument
from functrain.records import reprs, showing

Number = float | Tensor


@tree.node
class Progress:
    """How far a training run is; everything that a schedule may look at.

    Attributes:
        position: the fraction of the run that is done, in [0, 1], counted in batches.
        updates: completed updates, from 0.
        epoch: completed epochs with their fraction (the lesson's float epoch), from 0.

    >>> Progress(position=0.5, updates=100, epoch=1.5).epoch
    1.5
    """

    position: Number = 0.0
    updates: int | Tensor = 0
    epoch: Number = 0.0


_CLOCKS = ("position", "updates", "epochs", "progress")


def _check_schedule(schedule: "Schedule", _attribute: Any, _f: Any) -> None:
    if not callable(schedule.f):
        raise InvalidArgument(f"f must be a function of the position, got {schedule.f!r}")
    if schedule.clock not in _CLOCKS:
        raise InvalidArgument(f"clock must be one of {', '.join(_CLOCKS)}, got {schedule.clock!r}")
    if not is_number(schedule.length) or not 0 < schedule.length < math.inf:
        raise InvalidArgument(f"length must be a positive number, got {schedule.length!r}")


@attrs.frozen(repr=False)
class Schedule:
    """A value that depends on the progress of training; made by the functions of this module, or from any function.

    Calling it with a position in [0, 1], a float or a tensor of any shape, gives the value there: a float, or a tensor
    of the position's shape and dtype. Sums, differences and products of schedules and numbers are schedules, and so is
    a schedule to the power of a number; where the clocks differ, the result reads both (its clock is "progress").

    Attributes:
        f: a function of the position; where the clock is "progress", of a `Progress`.
        clock: what a run's progress is read from: its "position", or its "updates" or "epochs" divided by `length`
            (and held at the end). Calling takes a position in [0, 1] in either case. Or all of it, "progress": such a
            schedule has no position, so it is evaluated by `value` alone.
        length: the updates or epochs that the schedule takes.

    Raises:
        InvalidArgument: it is called with a position outside [0, 1], or its clock is "progress". (The values of a
            tensor are looked at only on the CPU, and only while nothing traces or transforms the running code.) Or f
            gives what is no real number, or of another shape than the position; True and False count as 1 and 0.

    >>> halving = Schedule(lambda position: 1 - 0.5 * position)
    >>> halving(0.5)
    0.75
    >>> (2 * halving)(torch.tensor([0.0, 0.5, 1.0]))
    tensor([2.0000, 1.5000, 1.0000])
    >>> (halving * halving + 1)(0.5)
    1.5625
    """

    f: Callable[[Number], Number] = attrs.field(validator=_check_schedule)
    clock: str = "position"
    length: float = 1.0

    def __call__(self, position: Number) -> Number:
        if self.clock == "progress":
            raise InvalidArgument(
                f"{self} looks at more than a position; evaluate it by schedule.value(it, schedule.Progress(...))"
            )
        if isinstance(position, Tensor):
            return _check_value(self, self.f(_check_tensor(position)), position.shape)
        if type(position) is not float:
            position = _as_float(position)
        if not 0.0 <= position <= 1.0:
            raise InvalidArgument(f"position must be in [0, 1], the fraction of training done, got {position!r}")
        return _check_value(self, self.f(position), ())

    def __add__(self, other: "Hyper") -> "Schedule":
        return _combine("+", self, other)

    def __radd__(self, other: Number) -> "Schedule":
        return _combine("+", other, self)

    def __sub__(self, other: "Hyper") -> "Schedule":
        return _combine("-", self, other)

    def __rsub__(self, other: Number) -> "Schedule":
        return _combine("-", other, self)

    def __mul__(self, other: "Hyper") -> "Schedule":
        return _combine("*", self, other) if isinstance(other, Schedule) else self.__rmul__(other)  # the number first

    def __rmul__(self, other: Number) -> "Schedule":
        return _combine("*", other, self)

    def __truediv__(self, divisor: Number) -> "Schedule":
        return NotImplemented if isinstance(divisor, Schedule) else _combine("*", self, 1 / divisor)

    def __pow__(self, power: Number) -> "Schedule":
        return NotImplemented if isinstance(power, Schedule) else _combine("**", self, power)

    def __neg__(self) -> "Schedule":
        return -1 * self

    def _repr_within_(self) -> str:
        """Return the call that makes it: its repr within another record, where there is no room for a picture."""
        within = reprs.short(self.f)
        return within if self.clock in ("position", "progress") else f"over_{self.clock}({self.length:g}, {within})"

    def __repr__(self) -> str:
        """Return the call that makes it, with a small picture of its course where its values can be computed now."""
        values = _course(self, 16)
        return f"{self._repr_within_()}  {showing.sparkline(values)}" if values else self._repr_within_()

    def __format__(self, spec: str) -> str:
        return format(self._repr_within_(), spec)

    def _repr_html_(self) -> str:
        values, shown = _course(self, 101), _updates_to_show(self)
        last, clock = (self.length, self.clock) if shown is None else (shown, "updates")
        points = [(last * k / 100, value) for k, value in enumerate(values)]
        return showing.html_lines(self._repr_within_()) + showing.curves({"": points}, clock)


Hyper = Number | Schedule
"""A hyperparameter: a number, or a schedule of it."""


def _course(schedule: Schedule, places: int) -> list[float]:
    """Return the values at places from begin to end, none where they cannot be computed now."""
    shown, positions = _updates_to_show(schedule), [k / (places - 1) for k in range(places)]
    try:
        if not is_plain():
            return []
        if shown is not None:
            return [float(value(schedule, Progress(updates=round(p * shown)))) for p in positions]
        return [float(schedule(p)) for p in positions]
    except Exception:  # a picture is never why a repr fails
        return []


def _updates_to_show(schedule: Schedule) -> float | None:
    """Return over how many updates to draw what has no end itself, None where it has one or does not say."""
    return getattr(schedule.f, "updates_to_show", None)


def _check_value(schedule: Schedule, made: Any, shape: tuple[int, ...]) -> Number:
    """Return what a schedule gave, after checking that it is a number for each position."""
    # What broadcasts would give a scalar parameter an axis, or each element of an array a value of its own.
    if isinstance(made, Tensor):
        if made.shape in ((), shape) and not made.is_complex():
            return made.double() if made.dtype is torch.bool else made
    elif isinstance(made, numbers.Real):
        return float(made) if isinstance(made, bool) else made  # pyright: ignore
    got = tree.describe(made) if isinstance(made, Tensor) else repr(made)
    raise InvalidArgument(
        f"the schedule {schedule} must give a real number at a position, or a tensor of the shape of the positions, "
        f"here {tuple(shape)}; it gave {got}"
    )


def _as_float(position: Any) -> float:
    if not is_number(position):
        raise InvalidArgument(f"position must be a number in [0, 1] or a tensor of such, got {position!r}")
    return float(position)


def _check_tensor(position: Tensor) -> Tensor:
    if position.dtype == torch.bool or position.is_complex():
        raise InvalidArgument(f"position must be a real number in [0, 1], got a tensor of {position.dtype}")
    if not position.is_floating_point():
        position = position.to(torch.get_default_dtype())
    if position.numel() == 0 or not is_readable(position):
        return position
    low, high = (position, position) if position.dim() == 0 else position.detach().aminmax()
    for bound in (low.item(), high.item()):
        if not 0.0 <= bound <= 1.0:
            raise InvalidArgument(
                f"position must be in [0, 1], the fraction of training done, got a tensor with {bound!r}"
            )
    return position


def is_readable(tensor: Tensor) -> bool:
    """Return whether the tensor's values may be looked at: reading would wait for a GPU, and a trace has no values.

    >>> is_readable(torch.tensor(0.5))
    True
    """
    return tensor.device.type == "cpu" and is_plain()


def is_number(value: Any) -> bool:
    """Return whether this is a real number: no bool, no NaN.

    >>> is_number(1), is_number(True), is_number(float("nan"))
    (True, False, False)
    """
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and not math.isnan(value)


def value(hyper: Hyper, progress: Any) -> Number:
    """Return what a hyperparameter is at some progress.

    Args:
        hyper: a number, which is returned as it is, or a schedule.
        progress: a `Progress`, or a record with its fields, such as `optim.Context`.

    >>> from functrain import schedule
    >>> rise = schedule.linear(0, 1)
    >>> by_updates = schedule.over_updates(10, rise)
    >>> value(0.1, Progress(0.5)), value(rise, Progress(0.5)), value(by_updates, Progress(updates=3))
    (0.1, 0.5, 0.3)
    """
    if not isinstance(hyper, Schedule):
        return hyper
    if hyper.clock == "position":
        return hyper(progress.position)
    if hyper.clock == "progress":
        clocks = progress.position, progress.updates, progress.epoch
        return _check_value(hyper, hyper.f(progress), max((getattr(c, "shape", ()) for c in clocks), key=len))
    count = progress.updates if hyper.clock == "updates" else progress.epoch
    if isinstance(count, Tensor):
        # In float64 whatever the counter is: float32 cannot tell neighbouring updates of a long run apart.
        return hyper((count.double() / hyper.length).clamp(max=1.0))
    return hyper(min(count / hyper.length, 1.0))


def check_hyper(
    name: str,
    hyper: Any,
    minimum: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
) -> Hyper:
    """Return a hyperparameter after checking that it is one.

    Args:
        name: the argument's name, for the message.
        hyper: a number, a floating-point scalar tensor, or a `Schedule`, whose values nobody can look at beforehand.
        minimum: the smallest number allowed, None for no limit.
        maximum: the largest number allowed, None for no limit.
        below: a limit that the number must stay under, None for no limit.

    Raises:
        InvalidArgument: it is something else, NaN, or outside the limits.

    >>> check_hyper("momentum", 0.9, minimum=0, below=1)
    0.9
    >>> check_hyper("lr", -0.1, minimum=0)
    Traceback (most recent call last):
        ...
    functrain.errors.InvalidArgument: lr must be a number of at least 0, or a Schedule; got -0.1
    """
    if isinstance(hyper, Schedule):
        return hyper
    if foreign.way_in(hyper):
        raise InvalidArgument(f"{name} must be a number or a Schedule, got {foreign.in_words(hyper)}")
    if callable(hyper) and not isinstance(hyper, Tensor):
        raise InvalidArgument(
            f"{name} must be a number or a Schedule, got the function {reprs.short(hyper)}; wrap a function of the "
            "position in schedule.Schedule(f), or make one of (start, end, position) a factory of schedules with "
            "schedule.annealer"
        )
    number = _readable(hyper)
    fits = number is None or (
        not math.isnan(number)
        and (minimum is None or number >= minimum)
        and (maximum is None or number <= maximum)
        and (below is None or number < below)
    )
    if not fits:
        limits = ((minimum, "of at least"), (maximum, "of at most"), (below, "below"))
        wanted = " and ".join(f"{words} {limit:g}" for limit, words in limits if limit is not None)
        raise InvalidArgument(f"{name} must be a number{' ' * bool(wanted)}{wanted}, or a Schedule; got {hyper!r}")
    return hyper


def _readable(number: Any) -> float | None:
    """Return the number as far as it can be read: None for a tensor not to be read now, NaN for what is no number."""
    if isinstance(number, Tensor):
        if number.dim() != 0 or not number.is_floating_point():
            return math.nan
        return number.item() if is_readable(number) else None
    return float(number) if is_number(number) else math.nan


def _combine(sign: str, a: Hyper, b: Hyper) -> Schedule:
    for one in (a, b):
        if not (isinstance(one, (Schedule, Tensor)) or is_number(one)):
            return NotImplemented
    clocks = dict.fromkeys((one.clock, one.length) for one in (a, b) if isinstance(one, Schedule))
    if len(clocks) > 1 or ("progress", 1.0) in clocks:
        return Schedule(_Combined(sign, a, b), "progress")
    return Schedule(
        _Combined(sign, *(one.f if isinstance(one, Schedule) else one for one in (a, b))), *clocks.popitem()[0]
    )


def _power(base: Number, power: Number) -> Number:
    if not isinstance(base, Tensor) and not isinstance(power, Tensor) and base < 0 and power != int(power):
        raise InvalidArgument(f"a schedule to the power of {power!r} must be at least 0, and it came to {base!r}")
    return base**power


_OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "**": _power}


@attrs.frozen(repr=False)
class _Combined:
    """The sum, difference, product or power of two: functions of the position, or schedules, or numbers."""

    sign: str
    left: Any
    right: Any

    def __call__(self, at):
        return _OPERATIONS[self.sign](*(_at(one, at) for one in (self.left, self.right)))

    def __repr__(self):
        return f"{_bracket(self.left)} {self.sign} {_bracket(self.right)}"


def _at(one: Any, at: Any) -> Any:
    if isinstance(one, Schedule):
        return value(one, at)
    return one(at) if callable(one) else one


def _bracket(one: Any) -> str:
    within = one.f if isinstance(one, Schedule) and one.clock in ("position", "progress") else one
    return f"({reprs.short(within)})" if isinstance(within, _Combined) else reprs.short(within)
