"""Every schedule is drawn, by `plot.schedule` and in small by its repr; within another record it is a call alone."""

import inspect
import math

import pytest

from functrain import nn, optim, plot, schedule
from functrain.records import reprs

LINE = schedule.linear(0.0, 1.0)
DRAWN = {
    "clip": schedule.clip(0.2, 0.8, LINE),
    "constant": schedule.constant(0.5),
    "cosine": schedule.cosine(1.0, 0.0),
    "cosine_restarts": schedule.cosine_restarts(1.0, 0.0, 3),
    "exp_range": schedule.exp_range(0.1, 1.0, 3, decay=0.5),
    "exponential": schedule.exponential(1.0, 0.1),
    "flat_cosine": schedule.flat_cosine(1.0),
    "interpolate": schedule.interpolate([0.3, 0.6], [1.0, 0.5, 0.1, 0.0]),
    "inverse_sqrt": schedule.inverse_sqrt(1.0, 0.1),
    "join": schedule.join([0.3, 0.7], [LINE, schedule.cosine(1.0, 0.0)]),
    "linear": LINE,
    "multistep": schedule.multistep(1.0, [0.5, 0.75]),
    "noam": schedule.noam(512, 100),
    "one_cycle": schedule.one_cycle(0.1, 1.0, 0.0),
    "over_epochs": schedule.over_epochs(3, LINE),
    "over_updates": schedule.over_updates(100, LINE),
    "piecewise_constant": schedule.piecewise_constant([0.5], [1.0, 0.1]),
    "polynomial": schedule.polynomial(1.0, 0.0, 2),
    "reverse": schedule.reverse(LINE),
    "shift": schedule.shift(0.25, LINE),
    "staircase": schedule.staircase(4, LINE),
    "step": schedule.step(1.0, 0.25),
    "triangular": schedule.triangular(0.1, 1.0, 2),
    "triangular2": schedule.triangular2(0.1, 1.0, 2),
    "warmup": schedule.warmup(0.1, schedule.cosine(1.0, 0.0)),
    "warmup_stable_decay": schedule.warmup_stable_decay(1.0),
}
NO_SCHEDULES = {"annealer", "check_hyper", "value"}


def test_none_is_missing():
    functions = {name for name in schedule.__all__ if not inspect.isclass(getattr(schedule, name))}
    assert DRAWN.keys() == functions - NO_SCHEDULES - {"Hyper", "Number"}


@pytest.mark.parametrize("name", DRAWN)
def test_it_is_drawn(name):
    made = DRAWN[name]
    assert str(made) == repr(made) and f"{made}" == reprs.short(made)
    picture = repr(made).removeprefix(f"{made}  ")
    assert len(picture) == 16 and set(picture) <= set("▁▂▃▄▅▆▇█")
    assert (len(set(picture)) > 1) == (name != "constant")
    (line,) = plot.schedule(made, points=5, updates=200, epochs=5).axes[0].lines
    values = line.get_ydata()
    assert len(values) == 5 and all(map(math.isfinite, values))
    ends = [schedule.Progress(), schedule.Progress(1.0, 200, 5)]
    assert [values[0], values[-1]] == pytest.approx([schedule.value(made, end) for end in ends])


def test_within_a_record_it_evaluates():
    for made in DRAWN.values():
        assert repr(optim.sgd(made)) == f"sgd(lr={made})"
    dropout = nn.dropout(LINE)
    assert repr(nn.serial(dropout, dropout)) == "serial(dropout(linear(0.0, 1.0)), dropout(linear(0.0, 1.0)))"
    assert eval(f"{DRAWN['join']}", vars(schedule)) == DRAWN["join"]


def test_it_is_not_drawn_where_it_has_no_values():
    assert repr(schedule.Schedule(lambda position: position.no_such_thing)) == "lambda"
    both = schedule.over_updates(10, LINE) * schedule.over_epochs(2, LINE)
    assert repr(both) == "over_updates(10, linear(0.0, 1.0)) * over_epochs(2, linear(0.0, 1.0))"
