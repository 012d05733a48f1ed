"""Schedules: values that change while training goes on, as pure functions of how much of it is done.

A schedule goes from a start to an end while the position goes from 0 to 1, and gives both exactly:

>>> cos(0.3, 0.6)(0.0), lin(1, 2)(0.3), cos(0.3, 0.6)(1.0)
(0.3, 1.3, 0.6)

Schedules compose: `combine` puts them one after another, `warmup` puts a rise before one, a number times a schedule
scales it, and `updates` and `epochs` let one run over a count of updates or epochs instead of the whole training.
"""

from functrain.schedule.hyper import Hyper, Number, Progress, Schedule, check_hyper, value
from functrain.schedule.phases import combine, epochs, one_cycle, updates, warmup
from functrain.schedule.shapes import annealer, cos, exp, lin, no, poly

__all__ = [
    "Hyper",
    "Number",
    "Progress",
    "Schedule",
    "annealer",
    "check_hyper",
    "combine",
    "cos",
    "epochs",
    "exp",
    "lin",
    "no",
    "one_cycle",
    "poly",
    "updates",
    "value",
    "warmup",
]
