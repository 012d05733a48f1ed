"""Hyperparameters: the value at some progress, the clocks that are read, and what is refused."""

import math

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from functrain import schedule
from functrain.errors import InvalidArgument
from functrain.schedule import Progress

# value and the clocks.

LINE = schedule.linear(0, 1)


def test_value_of_a_number_is_the_number_itself():
    number, tensor = 1e-3, torch.tensor(1e-3)
    assert schedule.value(number, Progress(0.5)) is number
    assert schedule.value(tensor, Progress(0.5)) is tensor


def test_value_reads_the_clock_of_the_schedule():
    line = schedule.linear(0, 1)
    at = Progress(position=0.25, updates=3, epoch=1.5)
    assert schedule.value(line, at) == 0.25
    assert schedule.value(schedule.over_updates(4, line), at) == 0.75
    assert schedule.value(schedule.over_epochs(2, line), at) == 0.75
    assert schedule.value(2 * schedule.over_updates(4, line), at) == 1.5


@pytest.mark.parametrize("clock", [schedule.over_updates, schedule.over_epochs])
def test_a_clock_holds_the_end_value(clock):
    rise = clock(3, schedule.cosine(0.1, 0.7))
    for done in (3, 4, 10**9):
        assert schedule.value(rise, Progress(updates=done, epoch=float(done))) == 0.7
        tensors = Progress(updates=torch.tensor(done), epoch=torch.tensor(float(done)))
        assert torch.equal(schedule.value(rise, tensors), torch.tensor(0.7, dtype=torch.float64))


def test_a_counter_tensor_keeps_neighbouring_updates_apart():
    rise = schedule.over_updates(2**26, schedule.linear(0.0, 2.0**26))
    assert schedule.value(rise, Progress(updates=torch.tensor(2**25 + 1))).item() == 2**25 + 1


def test_value_works_in_a_trace():
    rise = schedule.over_updates(10, schedule.cosine(0.0, 1.0))
    f = lambda updates: schedule.value(rise, Progress(updates=updates))  # noqa: E731
    traced = make_fx(f, tracing_mode="fake")(torch.tensor(0))
    for done in (0, 3, 10, 11):
        assert torch.equal(traced(torch.tensor(done)), f(torch.tensor(done)))


def test_a_clocked_schedule_called_by_position_runs_once():
    assert schedule.over_updates(100, schedule.linear(1, 2))(0.3) == 1.3


# check_hyper.


@pytest.mark.parametrize("hyper", [0, 0.5, 1, np.float32(0.5), torch.tensor(0.5), LINE, schedule.over_updates(3, LINE)])
def test_check_hyper_returns_what_it_accepts(hyper):
    assert schedule.check_hyper("rate", hyper, minimum=0, maximum=1) is hyper


def test_check_hyper_reads_no_value_of_a_traced_tensor():
    check = lambda rate: schedule.check_hyper("rate", rate, maximum=1.0)  # noqa: E731
    assert torch.func.vmap(check)(torch.tensor([0.5, 2.0])).tolist() == [0.5, 2.0]


@pytest.mark.parametrize(
    ("hyper", "limits", "message"),
    [
        (-0.1, {"minimum": 0}, "rate must be a number of at least 0, or a Schedule; got -0.1"),
        (
            1.5,
            {"minimum": 0, "maximum": 1},
            "rate must be a number of at least 0 and of at most 1, or a Schedule; got 1.5",
        ),
        (1.0, {"below": 1}, "rate must be a number below 1, or a Schedule; got 1.0"),
        (torch.tensor(2.0), {"maximum": 1}, "of at most 1"),
        (math.nan, {}, "rate must be a number, or a Schedule; got nan"),
        (True, {}, "got True"),
        ("0.1", {}, "got '0.1'"),
        (None, {}, "got None"),
        (torch.ones(2), {}, "rate must be a number"),
        (torch.tensor(1), {}, "rate must be a number"),
        (lambda p: p, {}, r"got the function .*wrap .*schedule.Schedule\(f\).*schedule.annealer"),
        (schedule.cosine, {}, "got the function cos"),
    ],
)
def test_check_hyper_says_what_it_wants(hyper, limits, message):
    with pytest.raises(InvalidArgument, match=message):
        schedule.check_hyper("rate", hyper, **limits)


# What a schedule of one's own gives.

ODD = {
    "None": (lambda position: None, "it gave None"),
    "a word": (lambda position: "0.1", "it gave '0.1'"),
    "a complex number": (lambda position: 1j, "it gave 1j"),
    "an array": (lambda position: np.array(0.1), r"it gave array\(0.1\)"),
    "a vector": (lambda position: torch.tensor([0.1]), r"it gave float32\(1,\)"),
    "a complex tensor": (lambda position: torch.tensor(1j), r"it gave complex64\(\)"),
    "a schedule": (lambda position: LINE, "it gave linear"),
}


@pytest.mark.parametrize("clock", ["position", "updates", "epochs", "progress"])
@pytest.mark.parametrize("name", ODD)
def test_what_is_no_number_is_refused_with_the_schedule(name, clock):
    f, message = ODD[name]
    odd = schedule.Schedule(f, clock)
    for progress in (Progress(0.5, 1, 0.5), Progress(torch.tensor(0.5), torch.tensor(1), torch.tensor(0.5))):
        with pytest.raises(InvalidArgument, match=f"^the schedule .*lambda.* must give a real number.*; {message}"):
            schedule.value(odd, progress)
    with pytest.raises(InvalidArgument, match=r"the schedule .* must give a real number"):
        schedule.value(odd + 1 if name in ("a vector", "a complex number") else odd, Progress(0.5))


@pytest.mark.parametrize("value", [1, np.float32(0.5), torch.tensor(2), torch.tensor(0.5, dtype=torch.float16)])
def test_what_is_a_number_stays_as_it_is(value):
    given = schedule.value(schedule.Schedule(lambda position: value), Progress(0.5))
    assert given is value


def test_a_choice_is_1_or_0():
    late = schedule.Schedule(lambda position: position > 0.5)
    assert (late(0.2), late(0.7)) == (0.0, 1.0) and type(late(0.7)) is float
    assert torch.equal(late(torch.tensor([0.2, 0.7])), torch.tensor([0.0, 1.0], dtype=torch.float64))


def test_positions_of_any_shape_have_values_of_it():
    rows = torch.tensor([[0.0, 0.5], [0.25, 1.0]])
    assert torch.equal(LINE(rows), rows) and schedule.constant(0.5)(rows).shape == rows.shape
    wrong = schedule.Schedule(lambda position: position[..., None])
    with pytest.raises(InvalidArgument, match=r"here \(2, 2\); it gave float32\(2, 2, 1\)"):
        wrong(rows)
