"""Schedules: exact ends, the lesson's numbers, PyTorch's schedulers, tensors and traces, clocks, messages."""

import inspect
import itertools
import math
import pickle
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

from functrain import schedule
from functrain.errors import InvalidArgument
from functrain.schedule import Progress, Schedule

finite = st.floats(-1e6, 1e6)
positive = st.floats(1e-6, 1e6)
fractions = st.floats(0.0, 1.0)
SHAPES = {
    "lin": schedule.linear,
    "cos": schedule.cosine,
    "exp": schedule.exponential,
    "poly2": lambda start, end: schedule.polynomial(start, end, 2),
    "poly0.5": lambda start, end: schedule.polynomial(start, end, power=0.5),
}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)

WHOLE = {
    "no": schedule.constant(0.3),
    **{name: shape(0.1, 0.7) for name, shape in SHAPES.items()},
    "join": schedule.join([0.3, 0.7], [schedule.cosine(0.3, 0.6), schedule.exponential(0.6, 0.2)]),
    "three": schedule.join(
        [0.2, 0.3, 0.5], [schedule.linear(0, 1), schedule.constant(1), schedule.polynomial(1, 0, 2)]
    ),
    "warmup": schedule.warmup(0.1, schedule.cosine(0.5, 0.0)),
    "one_cycle": schedule.one_cycle(0.3, 0.6, 0.2),
    "scaled": 0.1 * schedule.one_cycle(0.3, 0.6, 0.2),
    "sum": schedule.linear(0.1, 0.7) + schedule.cosine(0.0, 1.0) - 0.5,
    "product": schedule.linear(0.1, 0.7) * schedule.one_cycle(0.3, 0.6, 0.2),
    "power": schedule.cosine(1.0, 0.0) ** 2,
    "three phases": schedule.one_cycle(0.3, 0.6, 0.2, shape=schedule.linear, back=0.85),
    "restarts": schedule.cosine_restarts(0.5, 0.1, 3, growth=2, decay=0.5),
    "triangular": schedule.triangular(0.1, 0.5, 3, part=0.3),
    "triangular2": schedule.triangular2(0.1, 0.5, 3),
    "exp_range": schedule.exp_range(0.1, 0.5, 2.5),
    "piecewise": schedule.piecewise_constant([0.2, 0.6], [1, 2, 3]),
    "multistep": schedule.multistep(0.5, [0.2, 0.6]),
    "step": schedule.step(0.5, 0.15),
    "staircase": schedule.staircase(7, schedule.linear(1, 0)),
    "interpolate": schedule.interpolate([0.2, 0.6], [0, 1, 0.5, 0.7], schedule.cosine),
    "wsd": schedule.warmup_stable_decay(0.5, 0.1),
    "flat_cosine": schedule.flat_cosine(0.5),
    "inverse_sqrt": schedule.inverse_sqrt(0.5, 0.1),
    "shift": schedule.shift(0.3, schedule.cosine(0.5, 0.1)),
    "reverse": schedule.reverse(schedule.polynomial(0.1, 0.7, 3)),
    "clip": schedule.clip(0.2, 0.6, schedule.linear(0.1, 0.7)),
}
every = pytest.mark.parametrize("whole", WHOLE.values(), ids=WHOLE)


# The ends are exact.


@shapes
@given(start=positive, end=positive)
def test_both_ends_are_exact_as_floats_and_as_tensors(shape, start, end):
    made = shape(start, end)
    assert (made(0.0), made(1.0)) == (start, end)
    for dtype in (torch.float32, torch.float64):
        assert torch.equal(made(torch.tensor([0.0, 1.0], dtype=dtype)), torch.tensor([start, end], dtype=dtype))


@given(start=finite, end=finite)
def test_ends_of_any_sign_are_exact(start, end):
    for shape in (schedule.linear, schedule.cosine, SHAPES["poly2"]):
        assert (shape(start, end)(0.0), shape(start, end)(1.0)) == (start, end)
    cycle = schedule.one_cycle(start, 1.0, end)
    assert (cycle(0.0), cycle(0.3), cycle(1.0)) == (start, 1.0, end)


@shapes
@given(start=positive, end=positive, a=fractions, b=fractions)
def test_a_shape_goes_one_way_and_stays_between_its_ends(shape, start, end, a, b):
    early, late = sorted([a, b])
    low, middle, high = shape(start, end)(early), shape(start, end)(late), end
    slack = 1e-12 * max(start, end)
    assert min(start, end) - slack <= middle <= max(start, end) + slack
    assert (middle - low) * (high - start) >= -slack * abs(high - start)


def test_a_shape_towards_zero_never_crosses_it():
    near_end = 1 - 2**-53
    assert schedule.cosine(0.7, 0.0)(near_end) >= 0 and schedule.linear(0.7, 0.0)(near_end) >= 0


# Known values.


def test_the_lessons_numbers():
    assert schedule.linear(1, 2)(0.3) == 1.3
    assert schedule.constant(1)(0.3) == 1.0
    lesson = schedule.join([0.3, 0.7], [schedule.cosine(0.3, 0.6), schedule.cosine(0.6, 0.2)])
    assert (lesson(0.0), lesson(0.3), lesson(1.0)) == (0.3, 0.6, 0.2)
    assert lesson(0.15) == pytest.approx(0.45) and lesson(0.65) == pytest.approx(0.4)
    assert schedule.one_cycle(0.3, 0.6, 0.2)(0.37) == lesson(0.37)


def test_the_middles_of_the_shapes():
    assert schedule.cosine(1, 3)(0.5) == pytest.approx(2.0)
    assert schedule.cosine(0, 1)(1 / 3) == pytest.approx(0.25)
    assert schedule.exponential(1, 100)(0.5) == pytest.approx(10.0)
    assert schedule.exponential(-1, -100)(0.5) == pytest.approx(-10.0)
    assert schedule.polynomial(0, 1, power=3)(0.5) == pytest.approx(1 - 0.5**3)
    assert schedule.polynomial(0, 1, power=1)(0.3) == pytest.approx(0.3)


def _torch_rates(make, steps, lr=1.0):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


lr_scheduler = torch.optim.lr_scheduler


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (schedule.cosine(0.5, 0.1), lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=40, eta_min=0.1)),
        (schedule.linear(0.25, 0.5), lambda o: lr_scheduler.LinearLR(o, start_factor=0.5, total_iters=40)),
        (schedule.polynomial(0.5, 0, 1.7), lambda o: lr_scheduler.PolynomialLR(o, total_iters=40, power=1.7)),
        (schedule.exponential(0.5, 0.5 * 0.9**40), lambda o: lr_scheduler.ExponentialLR(o, gamma=0.9)),
        (schedule.constant(0.5), lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
    ],
    ids=["cos", "lin", "poly", "exp", "no"],
)
def test_pytorch_schedulers_give_the_same_rates(ours, theirs):
    by_updates = schedule.over_updates(40, ours)
    got = [schedule.value(by_updates, Progress(updates=i)) for i in range(41)]
    assert got == pytest.approx(_torch_rates(theirs, 41, lr=0.5), rel=1e-9, abs=1e-15)


def test_pytorch_one_cycle_gives_the_same_rates():
    # Of 41 steps, numbered 0 to 40, PyTorch's peak is at step pct_start * 41 - 1, here 11.
    ours = schedule.one_cycle(0.6 / 25, 0.6, 0.6 / 25 / 1e4, part=11 / 40)
    theirs = _torch_rates(
        lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.6, total_steps=41, cycle_momentum=False, pct_start=12 / 41), 40
    )
    assert [ours(i / 40) for i in range(40)] == pytest.approx(theirs, rel=1e-9)


# Floats, tensors, traces.


@every
def test_floats_give_floats_and_tensors_keep_shape_and_dtype(whole):
    assert type(whole(0.3)) is float and type(whole(0)) is float and type(whole(np.float32(0.5))) is float
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        for shape in ((), (3,), (2, 2), (0,)):
            at = torch.full(shape, 0.25, dtype=dtype)
            assert (whole(at).shape, whole(at).dtype) == (at.shape, dtype)


@every
def test_tensors_agree_with_floats(whole):
    grid = torch.linspace(0, 1, 101, dtype=torch.float64)
    wanted = torch.tensor([whole(p) for p in grid.tolist()], dtype=torch.float64)
    torch.testing.assert_close(whole(grid), wanted, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(torch.stack([whole(p) for p in grid]), whole(grid), rtol=1e-14, atol=1e-15)


@every
def test_traced_and_mapped_is_what_runs_eagerly(whole):
    for dtype in (torch.float64, torch.float32):
        grid = torch.linspace(0, 1, 37, dtype=dtype)
        traced = make_fx(whole, tracing_mode="fake")(torch.tensor(0.5, dtype=dtype))
        assert torch.equal(torch.stack([traced(p) for p in grid]), torch.stack([whole(p) for p in grid]))
        assert torch.equal(torch.func.vmap(whole)(grid), whole(grid))


def test_a_position_that_is_an_integer_tensor_becomes_a_float():
    assert torch.equal(schedule.linear(1, 2)(torch.tensor([0, 1])), torch.tensor([1.0, 2.0]))
    assert torch.equal(schedule.constant(0.5)(torch.tensor(1)), torch.tensor(0.5))


def test_the_position_is_not_changed():
    at = torch.tensor([0.0, 0.3, 1.0])
    for whole in WHOLE.values():
        whole(at)
    assert torch.equal(at, torch.tensor([0.0, 0.3, 1.0]))


def test_a_schedule_over_tensors_can_be_mapped_and_differentiated():
    rates = torch.tensor([0.1, 0.2], dtype=torch.float64)
    mapped = torch.func.vmap(lambda lr: schedule.cosine(lr, 0.0)(0.5))(rates)
    torch.testing.assert_close(mapped, rates / 2)
    slope = torch.func.grad(lambda lr: schedule.linear(lr, 0.0)(0.25))(rates[0])
    assert slope.item() == pytest.approx(0.75)
    assert schedule.constant(rates[1])(torch.zeros(3)).tolist() == pytest.approx([0.2] * 3)


# The range of the position.


@pytest.mark.parametrize("position", [-1e-9, 1.0000001, math.inf, math.nan, 2])
def test_a_position_outside_the_range_is_an_error(position):
    with pytest.raises(InvalidArgument, match=r"position must be .*\[0, 1\].*got"):
        schedule.linear(1, 2)(position)
    for tensor in (torch.tensor(float(position)), torch.tensor([0.5, float(position)], requires_grad=True)):
        with pytest.raises(InvalidArgument, match=r"position must be in \[0, 1\].*got a tensor with"):
            schedule.linear(1, 2)(tensor)


@pytest.mark.parametrize("position", ["0.5", None, True, [0.5], Progress()])
def test_a_position_that_is_no_number_is_an_error(position):
    with pytest.raises(InvalidArgument, match="position must be a number in"):
        schedule.linear(1, 2)(position)


@pytest.mark.parametrize("tensor", [torch.tensor(True), torch.tensor(0.5j)])
def test_a_position_of_a_dtype_without_order_is_an_error(tensor):
    with pytest.raises(InvalidArgument, match="got a tensor of torch"):
        schedule.linear(1, 2)(tensor)


def test_a_traced_position_is_not_read():
    grid = torch.tensor([0.5, 2.0])
    torch.func.vmap(schedule.linear(1, 2))(grid)
    make_fx(schedule.linear(1, 2), tracing_mode="fake")(torch.tensor(2.0))


# combine, warmup, one_cycle.


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.data())
def test_combine_of_lines_is_the_broken_line_through_its_corners(sizes, data):
    total = sum(sizes)
    corners = data.draw(st.lists(st.floats(-100, 100), min_size=len(sizes) + 1, max_size=len(sizes) + 1))
    lines = [schedule.linear(a, b) for a, b in itertools.pairwise(corners)]
    whole = schedule.join([size / total for size in sizes], lines)
    at = data.draw(fractions)
    edges = np.cumsum([0, *sizes]) / total
    assert whole(at) == pytest.approx(np.interp(at, edges, corners), abs=1e-9)
    assert whole(torch.tensor(at, dtype=torch.float64)).item() == pytest.approx(whole(at), rel=1e-12, abs=1e-12)
    assert (whole(0.0), whole(1.0)) == (corners[0], corners[-1])


def test_combine_is_closed():
    inner = schedule.join([0.5, 0.5], [schedule.linear(0, 1), schedule.linear(1, 3)])
    outer = schedule.join([0.5, 0.5], [inner, schedule.constant(3)])
    assert [outer(p) for p in (0.0, 0.25, 0.375, 0.5, 1.0)] == [0.0, 1.0, 2.0, 3.0, 3.0]


def test_combine_takes_parts_that_sum_to_one_up_to_rounding():
    tenths = schedule.join([0.1] * 10, [schedule.linear(i, i + 1) for i in range(10)])
    assert tenths(1.0) == 10.0 and tenths(0.55) == pytest.approx(5.5)


LINE = schedule.linear(0, 1)


@pytest.mark.parametrize(
    ("parts", "schedules", "message"),
    [
        ([0.3, 0.6], [LINE, LINE], r"parts must sum to 1, got \[0.3, 0.6\] with the sum 0.9"),
        ([0.3, 0.7], [LINE], "got 2 parts and 1 schedules"),
        ([], [], "at least one, got 0 parts"),
        ([1.3, -0.3], [LINE, LINE], r"parts\[1\] must be a positive fraction of the time, got -0.3"),
        ([0.0, 1.0], [LINE, LINE], r"parts\[0\] must be a positive fraction"),
        ([math.nan, 1.0], [LINE, LINE], r"parts\[0\] must be a positive fraction"),
        (["a", 1.0], [LINE, LINE], r"parts\[0\] must be a positive fraction"),
        ([0.5, 0.5], [LINE, 0.1], r"schedules\[1\] must be a Schedule, got 0.1.*schedule.constant"),
        ([0.5, 0.5], [LINE, schedule.over_updates(5, LINE)], r"schedules\[1\] must be a schedule by position.*outside"),
    ],
)
def test_combine_says_what_is_wrong(parts, schedules, message):
    with pytest.raises(InvalidArgument, match=message):
        schedule.join(parts, schedules)


def test_warmup_rises_to_where_the_schedule_begins():
    warm = schedule.warmup(0.25, schedule.linear(0.8, 0.0), start=0.4)
    assert [warm(p) for p in (0.0, 0.125, 0.25, 1.0)] == pytest.approx([0.4, 0.6, 0.8, 0.0])
    assert warm(0.625) == pytest.approx(0.4)
    assert schedule.warmup(0, LINE) is LINE


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedule.warmup(1.0, LINE), r"part must be a fraction of the time in \[0, 1\), got 1.0"),
        (lambda: schedule.warmup(-0.1, LINE), "part must be"),
        (lambda: schedule.warmup(0.1, 0.5), "schedule must be a Schedule, got 0.5"),
        (lambda: schedule.one_cycle(0.3, 0.6, 0.2, part=0), r"part must be a fraction of the time in \(0, 1\), got 0"),
        (lambda: schedule.one_cycle(0.3, 0.6, 0.2, part=1.5), "part must be"),
        (lambda: schedule.over_updates(0, LINE), "n must be a positive whole number of updates, got 0"),
        (lambda: schedule.over_updates(1.5, LINE), "n must be a positive whole number of updates, got 1.5"),
        (lambda: schedule.over_updates(5, schedule.over_epochs(2, LINE)), "must be a schedule by position"),
        (lambda: schedule.over_epochs(-1, LINE), "n must be a positive number of epochs, got -1"),
        (lambda: schedule.over_epochs(1, 0.1), "schedule must be a Schedule"),
        (lambda: schedule.exponential(0.0, 1.0), "exponential needs a start and an end of one sign.*start=0 and end=1"),
        (lambda: schedule.exponential(-1.0, 1.0), "exponential needs"),
        (lambda: schedule.polynomial(1, 0, power=0), "power must be a positive number, got 0"),
        (lambda: schedule.linear(math.inf, 1), "start must be a finite number, got inf"),
        (lambda: schedule.cosine(1, "2"), "end must be a finite number, got '2'"),
        (lambda: schedule.constant(math.nan), "value must be a finite number, got nan"),
        (lambda: Schedule(0.1), "f must be a function of the position, got 0.1"),
        (
            lambda: Schedule(LINE.f, clock="batches"),
            "clock must be one of position, .*progress, got 'batches'",
        ),
        (lambda: Schedule(LINE.f, "updates", 0), "length must be a positive number, got 0"),
    ],
)
def test_bad_arguments_are_known_when_the_schedule_is_made(make, message):
    with pytest.raises(InvalidArgument, match=message):
        make()


# annealer, and schedules as values.


@schedule.annealer
def root(start, end, position, degree=2):
    """Return the schedule on a root of the position."""
    return start + position ** (1 / degree) * (end - start)


def test_annealer_shows_the_signature_without_the_position():
    assert str(inspect.signature(root)).startswith("(start, end, degree=2) -> ")
    assert str(inspect.signature(schedule.cosine)).startswith("(start, end) -> ")
    assert root.__name__ == "root" and "root of the position" in inspect.getdoc(root)


def test_annealer_takes_options_by_place_and_by_name():
    assert root(0, 1)(0.25) == 0.5
    assert root(0, 1, 3)(0.125) == root(start=0, end=1, degree=3)(0.125) == 0.5
    with pytest.raises(TypeError, match="unexpected keyword"):
        root(0, 1, power=3)


def test_annealer_refuses_what_has_no_position():
    with pytest.raises(InvalidArgument, match=r"function of \(start, end, position\), got 'f' with 1 parameters"):

        @schedule.annealer
        def f(position):
            return position


def test_equal_schedules_are_equal_and_hash_alike():
    for make in (lambda: schedule.one_cycle(0.3, 0.6, 0.2), lambda: 2 * schedule.over_updates(5, schedule.constant(1))):
        assert make() == make() and hash(make()) == hash(make())
    assert schedule.linear(0, 1) != schedule.linear(0, 2) and schedule.linear(0, 1) != schedule.cosine(0, 1)
    assert schedule.over_updates(5, LINE) != schedule.over_updates(6, LINE)


def test_schedules_survive_pickling():
    for whole in [*WHOLE.values(), schedule.over_epochs(2, root(0, 1, degree=3))]:
        assert pickle.loads(pickle.dumps(whole)) == whole


@pytest.mark.parametrize(
    ("made", "shown"),
    [
        (schedule.constant(0.3), "constant(0.3)"),
        (schedule.polynomial(1, 0, power=2), "polynomial(1.0, 0.0, 2)"),
        (schedule.over_updates(100, schedule.linear(0, 1)), "over_updates(100, linear(0.0, 1.0))"),
        (schedule.join([0.5, 0.5], [LINE, LINE]), "join([0.5, 0.5], [linear(0.0, 1.0), linear(0.0, 1.0)])"),
        (0.5 * LINE, "0.5 * linear(0.0, 1.0)"),
    ],
)
def test_a_schedule_prints_as_what_makes_it(made, shown):
    assert f"{made}" == shown and re.fullmatch(re.escape(shown) + "  [▁▂▃▄▅▆▇█]{16}", repr(made))


def test_a_number_times_a_schedule():
    assert (0.5 * LINE)(0.5) == (LINE * 0.5)(0.5) == 0.25
    with pytest.raises(TypeError):
        LINE * "2"


@pytest.mark.parametrize(("old", "new"), [("cos", "cosine"), ("no", "constant"), ("combine_scheds", "join")])
def test_a_name_of_the_lesson_answers_with_ours(old, new):
    with pytest.raises(AttributeError, match=f"its name is schedule.{new}"):
        getattr(schedule, old)


def test_an_unknown_name_answers_with_those_that_exist():
    with pytest.raises(AttributeError, match=r"has no 'wavy'; it has .*cosine, .*join"):
        _ = schedule.wavy
