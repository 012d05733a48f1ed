"""Schedules: values that change while training goes on, as pure functions of how much of it is done.

A schedule goes from a start to an end while the position goes from 0 to 1, and gives both exactly:

>>> cosine(0.3, 0.6)(0.0), linear(1, 2)(0.3), cosine(0.3, 0.6)(1.0)
(0.3, 1.3, 0.6)

Schedules compose: `join` puts them one after another, `warmup` puts a rise before one, a number times a schedule
scales it, and `over_updates` and `over_epochs` let one run over a count of updates or epochs instead of the whole
training.
"""

from functrain.schedule.hyper import Hyper, Number, Progress, Schedule, check_hyper, value
from functrain.schedule.phases import join, one_cycle, over_epochs, over_updates, warmup
from functrain.schedule.shapes import annealer, constant, cosine, exponential, linear, polynomial

__all__ = [
    "Hyper",
    "Number",
    "Progress",
    "Schedule",
    "annealer",
    "check_hyper",
    "constant",
    "cosine",
    "exponential",
    "join",
    "linear",
    "one_cycle",
    "over_epochs",
    "over_updates",
    "polynomial",
    "value",
    "warmup",
]


def __dir__() -> list[str]:
    return __all__


_RENAMED = {
    "no": "constant",
    "lin": "linear",
    "cos": "cosine",
    "exp": "exponential",
    "poly": "polynomial",
    "combine": "join",
    "updates": "over_updates",
    "epochs": "over_epochs",
    "sched_no": "constant",
    "sched_lin": "linear",
    "sched_cos": "cosine",
    "sched_exp": "exponential",
    "sched_poly": "polynomial",
    "combine_scheds": "join",
}
"""The lesson's names, and short ones that people try -> ours."""


def __getattr__(name: str) -> object:
    if name in _RENAMED:
        raise AttributeError(f"functrain.schedule has no {name!r}: its name is schedule.{_RENAMED[name]}")
    raise AttributeError(f"functrain.schedule has no {name!r}; it has {', '.join(__all__)}")
