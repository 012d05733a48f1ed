"""Sums, products, powers and limits of schedules, over one clock and several; and what is refused."""

import math
import pickle
from functools import partial

import pytest
import torch

import functrain as ft
from functrain import losses, nn, optim, plot, schedule
from functrain.errors import InvalidArgument
from functrain.schedule import Progress, Schedule, cosine, linear, over_epochs, over_updates, value

LINE, FALL = linear(0.0, 1.0), cosine(1.0, 0.2)
PLACES = [k / 20 for k in range(21)]


@pytest.mark.parametrize(
    ("made", "formula"),
    [
        (LINE + FALL, lambda a, b: a + b),
        (LINE - FALL, lambda a, b: a - b),
        (LINE * FALL, lambda a, b: a * b),
        (1 - LINE, lambda a, b: 1 - a),
        (LINE - 1, lambda a, b: a - 1),
        (2 + LINE * 3, lambda a, b: 2 + a * 3),
        (-LINE, lambda a, b: -a),
        (FALL**-2, lambda a, b: b**-2),
        ((LINE + FALL) * (LINE - FALL), lambda a, b: (a + b) * (a - b)),
        (torch.tensor(0.5, dtype=torch.float64) * LINE, lambda a, b: 0.5 * a),
    ],
)
def test_arithmetic_is_that_of_the_values(made, formula):
    for p in PLACES:
        assert float(made(p)) == pytest.approx(formula(LINE(p), FALL(p)), rel=1e-12, abs=1e-15)
        assert float(made(torch.tensor(p, dtype=torch.float64))) == pytest.approx(float(made(p)), rel=1e-12, abs=1e-15)


def test_one_clock_is_kept():
    a, b = over_updates(10, LINE), over_updates(10, FALL)
    assert (a * b).clock == "updates" and (a * b).length == 10
    assert value(a * b + 1, Progress(updates=5)) == pytest.approx(0.5 * 0.6 + 1)
    assert schedule.clip(0.2, None, a).clock == "updates"
    assert value(schedule.clip(0.2, None, a), Progress(updates=1)) == 0.2


TWO = over_updates(10, LINE) * FALL + 0.5 * over_epochs(4, LINE)


def _two(updates, position, epoch):
    return min(updates / 10, 1) * FALL(position) + 0.5 * min(epoch / 4, 1)


@pytest.mark.parametrize("at", [(0, 0.0, 0.0), (5, 0.25, 1.0), (20, 0.9, 3.5)])
def test_several_clocks_are_read_side_by_side(at):
    updates, position, epoch = at
    progress = Progress(position, updates, epoch)
    assert value(TWO, progress) == pytest.approx(_two(*at), rel=1e-12)
    assert value(schedule.clip(0.3, 0.4, TWO), progress) == min(max(_two(*at), 0.3), 0.4)
    scalars = [torch.tensor(updates), *(torch.tensor(x, dtype=torch.float64) for x in (position, epoch))]
    traced = ft.jit(lambda u, p, e: value(TWO, Progress(p, u, e)))(*scalars)
    assert traced.item() == pytest.approx(_two(*at), rel=1e-12)


def test_an_optimizer_and_a_training_step_take_several_clocks():
    learner = ft.Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=over_updates(2, LINE) * FALL))
    batch = torch.ones(4, 3), torch.zeros(4, dtype=torch.int64)
    state = ft.init(learner, ft.random.key(0), batch)
    step = ft.train_step(learner)
    same, _ = step(state, batch)
    assert torch.equal(same.params["weight"], state.params["weight"])
    moved, _ = step(same, batch)
    assert not torch.equal(moved.params["weight"], same.params["weight"])


def test_noam_reads_updates_alone():
    made = schedule.noam(512, 4000)
    assert value(made, Progress(updates=3999)) == pytest.approx(512**-0.5 * 4000**-0.5)
    assert value(0.5 * made, Progress(updates=0)) == pytest.approx(0.5 * 512**-0.5 * 4000**-1.5)
    assert value(made, Progress(updates=torch.tensor(10**6))).item() == pytest.approx(512**-0.5 * (10**6 + 1) ** -0.5)


@pytest.mark.parametrize(
    ("made", "shown"),
    [
        (LINE + FALL, "linear(0.0, 1.0) + cosine(1.0, 0.2)"),
        (2 * (LINE - 0.5), "2 * (linear(0.0, 1.0) - 0.5)"),
        (over_updates(10, LINE) * FALL, "over_updates(10, linear(0.0, 1.0)) * cosine(1.0, 0.2)"),
        (FALL**2, "cosine(1.0, 0.2) ** 2"),
        (schedule.noam(8, 4), "noam(8, 4, 1)"),
        (schedule.triangular(0.1, 0.5, 3), "triangular(0.1, 0.5, 3, 0.5)"),
        (schedule.step(1.0, 0.25, 0.5), "step(1, 0.25, 0.5)"),
        (schedule.staircase(4, LINE), "staircase(4, linear(0.0, 1.0))"),
        (schedule.shift(0.25, LINE), "shift(0.25, linear(0.0, 1.0))"),
        (schedule.reverse(LINE), "reverse(linear(0.0, 1.0))"),
        (schedule.clip(0.2, None, over_updates(5, LINE)), "over_updates(5, clip(0.2, None, linear(0.0, 1.0)))"),
    ],
)
def test_a_schedule_prints_as_what_makes_it(made, shown):
    assert f"{made}" == shown
    picture = repr(made).removeprefix(shown)
    assert (picture == "") == (made.clock == "progress" and not shown.startswith("noam"))
    assert pickle.loads(pickle.dumps(made)) == made and hash(made) == hash(made)


def test_the_picture_is_drawn():
    assert str(schedule.triangular(0.0, 1.0, 2)).endswith("▁")
    lines = plot.schedule({"a": schedule.step(1.0, 0.25), "b": LINE * FALL}).axes[0].lines
    assert len(lines) == 2
    assert schedule.one_cycle(0.1, 0.5, 0.0)._repr_html_().count("<svg") == 1
    assert "<svg" not in TWO._repr_html_() and "<svg" in schedule.noam(8, 4)._repr_html_()
    (line,) = plot.schedule(TWO, points=3, updates=10, epochs=2).axes[0].lines
    assert line.get_xdata() == pytest.approx([0, 5, 10])
    assert line.get_ydata() == pytest.approx(
        [schedule.value(TWO, schedule.Progress(p, 10 * p, 2 * p)) for p in (0, 0.5, 1)]
    )


REFUSED = [
    (partial(TWO, 0.5), "looks at more than a position; evaluate it by schedule.value"),
    (partial(schedule.join, [1.0], [TWO]), r"schedules\[0\] must be a schedule by position.*several clocks"),
    (partial(plot.schedule, TWO), "looks at several clocks"),
    (partial((LINE - 1) ** 0.5, 0.5), "to the power of 0.5 must be at least 0, and it came to -0.5"),
    (partial(schedule.piecewise_constant, [0.5], [1.0]), "values must be 2, one more than milestones, got 1"),
    (partial(schedule.piecewise_constant, [30], [1, 2]), r"milestones must be positions in \(0, 1\).*got 30"),
    (partial(schedule.piecewise_constant, [0.5, 0.2], [1, 2, 3]), r"milestones must ascend, got \[0.5, 0.2\]"),
    (partial(schedule.piecewise_constant, [0.5], [1, math.inf]), "value must be a finite number"),
    (partial(schedule.multistep, 0.1, [0.5], 0), "factor must be a positive number, got 0"),
    (partial(schedule.multistep, 0.1, [0.0]), "milestones must be positions"),
    (partial(schedule.step, 0.1, 10), r"every must be a fraction of the time in \(0, 1\], got 10"),
    (partial(schedule.step, 0.1, 0.1, -1), "factor must be a positive number"),
    (partial(schedule.step, 1.0, 0.0001, 2.0), "a factor of 2 every 0.0001 of the time leaves the range of numbers"),
    (partial(schedule.step, math.inf, 0.1), "value must be a finite number, got inf"),
    (partial(schedule.staircase, 0.5, LINE), "stairs must be a number of at least 1, got 0.5"),
    (partial(schedule.staircase, 5, 0.1), "schedule must be a Schedule, got 0.1"),
    (partial(schedule.interpolate, [0.5], [1, 2]), "values must be 3, two more than milestones, got 2"),
    (partial(schedule.one_cycle, 0, 1, 0, 0.5, back=0.4), r"back must be .* in \(part, 1\), here \(0.5, 1\), got 0.4"),
    (partial(schedule.cosine_restarts, 1.0, cycles=0), "cycles must be a whole number of at least 1, got 0"),
    (partial(schedule.cosine_restarts, 1.0, cycles=2.0), "cycles must be a whole number"),
    (partial(schedule.cosine_restarts, 1.0, growth=0), "growth must be a positive number, got 0"),
    (partial(schedule.cosine_restarts, 1.0, decay=-1), "decay must be a positive number, got -1"),
    (partial(schedule.triangular, 0, 1, 0.5), "cycles must be a number of at least 1, got 0.5"),
    (partial(schedule.triangular, 0, 1, 2, 1.0), r"part must be a fraction of a cycle in \(0, 1\), got 1.0"),
    (partial(schedule.triangular, math.nan, 1), "low must be a finite number, got nan"),
    (partial(schedule.exp_range, 0, 1, decay=0), "decay must be a positive number, got 0"),
    (partial(schedule.warmup_stable_decay, 1.0, warmup=0.5, decay=0.6), "sum to at most 1, got 0.5 [+] 0.6"),
    (partial(schedule.warmup_stable_decay, 1.0, warmup=1.0), r"warmup must be a fraction of the time in \[0, 1\)"),
    (partial(schedule.warmup_stable_decay, 1.0, decay=0), r"decay must be a fraction of the time in \(0, 1\], got 0"),
    (partial(schedule.flat_cosine, 1.0, part=1.0), r"part must be a fraction of the time in \[0, 1\), got 1.0"),
    (partial(schedule.inverse_sqrt, 1.0, 0), r"part must be a fraction of the time in \(0, 1\), got 0"),
    (partial(schedule.inverse_sqrt, math.inf, 0.1), "end must be a finite number, got inf"),
    (partial(schedule.noam, 512, 0), "warmup must be a whole number of at least 1, got 0"),
    (partial(schedule.noam, 0.5, 10), "width must be a whole number of at least 1, got 0.5"),
    (partial(schedule.noam, 512, 10, 0), "factor must be a positive number"),
    (partial(schedule.shift, 1.0, LINE), r"part must be a fraction of the time in \(-1, 1\), got 1.0"),
    (partial(schedule.shift, 0.1, over_updates(5, LINE)), "schedule must be a schedule by position"),
    (partial(schedule.reverse, 0.1), "schedule must be a Schedule"),
    (partial(schedule.clip, None, None, LINE), "clip needs a minimum, a maximum, or both"),
    (partial(schedule.clip, 1, 0, LINE), "clip needs a minimum, a maximum, or both in this order, got 1 and 0"),
    (partial(schedule.clip, 0, None, 0.5), "schedule must be a Schedule"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_bad_input_is_refused_in_words(make, message):
    with pytest.raises(InvalidArgument, match=message):
        make()


@pytest.mark.parametrize("other", ["2", None, [1.0], True])
def test_what_is_no_number_does_not_combine(other):
    for combine in (lambda: LINE + other, lambda: other - LINE, lambda: LINE * other, lambda: LINE**other):
        with pytest.raises(TypeError):
            combine()
    with pytest.raises(TypeError):
        LINE**LINE


def test_a_schedule_of_any_function_combines():
    assert (Schedule(lambda p: p * p) + LINE)(0.5) == 0.75


def test_a_schedule_divided_is_one_times_the_inverse():
    assert (schedule.linear(1.0, 0.0) / 4)(0.5) == 0.125
    with pytest.raises(TypeError):
        schedule.linear(1.0, 0.0) / schedule.linear(2.0, 1.0)
    with pytest.raises(ZeroDivisionError):
        schedule.linear(1.0, 0.0) / 0
