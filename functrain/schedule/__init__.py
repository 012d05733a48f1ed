"""Schedules: values that change while training goes on, as pure functions of how much of it is done.

A schedule goes from a start to an end while the position goes from 0 to 1, and gives both exactly:

>>> cosine(0.3, 0.6)(0.0), linear(1, 2)(0.3), cosine(0.3, 0.6)(1.0)
(0.3, 1.3, 0.6)

Schedules compose: `join` puts them one after another, `warmup` puts a rise before one, they add and multiply with
numbers and each other, and `over_updates` and `over_epochs` let one run over a count of updates or epochs instead of
the whole training. To read: hyper, shapes, phases; then stairs, cycles, decays, moves.
"""

from functrain.schedule.cycles import cosine_restarts, exp_range, one_cycle, triangular, triangular2
from functrain.schedule.decays import flat_cosine, inverse_sqrt, noam, warmup_stable_decay
from functrain.schedule.hyper import Hyper, Number, Progress, Schedule, check_hyper, value
from functrain.schedule.moves import clip, interpolate, reverse, shift
from functrain.schedule.phases import join, over_epochs, over_updates, warmup
from functrain.schedule.shapes import annealer, constant, cosine, exponential, linear, polynomial
from functrain.schedule.stairs import multistep, piecewise_constant, staircase, step

__all__ = [
    "Hyper",
    "Number",
    "Progress",
    "Schedule",
    "annealer",
    "check_hyper",
    "clip",
    "constant",
    "cosine",
    "cosine_restarts",
    "exp_range",
    "exponential",
    "flat_cosine",
    "interpolate",
    "inverse_sqrt",
    "join",
    "linear",
    "multistep",
    "noam",
    "one_cycle",
    "over_epochs",
    "over_updates",
    "piecewise_constant",
    "polynomial",
    "reverse",
    "shift",
    "staircase",
    "step",
    "triangular",
    "triangular2",
    "value",
    "warmup",
    "warmup_stable_decay",
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
    "wsd": "warmup_stable_decay",
    "sgdr": "cosine_restarts",
    "cyclic": "triangular",
    "flat_cos": "flat_cosine",
    "step_decay": "step",
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
