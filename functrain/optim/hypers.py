"""The checks of hyperparameters that primitives share: each returns them by name, or says which is out of range."""

import math

from torch import Tensor

from functrain import schedule
from functrain.errors import InvalidArgument
from functrain.schedule import Hyper, Number, Schedule
from functrain.schedule.hyper import is_readable


def decays(**hypers: Hyper) -> dict[str, Hyper]:
    """Return hyperparameters by name after checking that each is in [0, 1).

    >>> decays(b1=0.9)
    {'b1': 0.9}
    >>> decays(b1=1.0)
    Traceback (most recent call last):
        ...
    functrain.errors.InvalidArgument: b1 must be a number of at least 0 and below 1, or a Schedule; got 1.0
    """
    return {name: schedule.check_hyper(name, hyper, minimum=0, below=1) for name, hyper in hypers.items()}


def nonnegative(**hypers: Hyper) -> dict[str, Hyper]:
    """Return hyperparameters by name after checking that each is finite and at least 0.

    >>> nonnegative(lr=-0.1)
    Traceback (most recent call last):
        ...
    functrain.errors.InvalidArgument: lr must be a number of at least 0, or a Schedule; got -0.1
    """
    return {name: _finite(name, schedule.check_hyper(name, hyper, minimum=0)) for name, hyper in hypers.items()}


def check_fixed(**numbers: Number) -> dict[str, Number]:
    """Return numbers by name after checking that each is finite, at least 0, and no schedule.

    >>> check_fixed(initial=0.1)
    {'initial': 0.1}
    """
    for name, number in numbers.items():
        if isinstance(number, Schedule):
            raise InvalidArgument(f"{name} must be a number that stays as it is, got the schedule {number}")
    return nonnegative(**numbers)  # pyright: ignore


def finite(**hypers: Hyper) -> dict[str, Hyper]:
    """Return hyperparameters by name after checking that each is a finite number.

    >>> finite(factor=float("inf"))
    Traceback (most recent call last):
        ...
    functrain.errors.InvalidArgument: factor must be a finite number, or a Schedule; got inf
    """
    return {name: _finite(name, schedule.check_hyper(name, hyper)) for name, hyper in hypers.items()}


def _finite(name: str, hyper: Hyper) -> Hyper:
    if isinstance(hyper, Schedule) or (isinstance(hyper, Tensor) and not is_readable(hyper)):
        return hyper
    if not math.isfinite(hyper.item() if isinstance(hyper, Tensor) else hyper):
        raise InvalidArgument(f"{name} must be a finite number, or a Schedule; got {hyper!r}")
    return hyper


def positive(**hypers: Hyper) -> dict[str, Hyper]:
    """Return hyperparameters by name after checking that each is finite and above 0.

    >>> positive(initial=0.0)
    Traceback (most recent call last):
        ...
    functrain.errors.InvalidArgument: initial must be a number above 0, or a Schedule; got 0.0
    """
    for name, hyper in nonnegative(**hypers).items():
        readable = not isinstance(hyper, Schedule) and not (isinstance(hyper, Tensor) and not is_readable(hyper))
        if readable and hyper == 0:
            raise InvalidArgument(f"{name} must be a number above 0, or a Schedule; got {hyper!r}")
    return hypers
