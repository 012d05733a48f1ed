"""What a trace predicts of layouts is compared at the first call, and learned where it was wrong."""

import pytest
import torch

import functrain as ft
from functrain.engine.backends.aten.predictions import Mispredicted
from functrain.engine.tracing.meta import operation_rules, trial_run
from functrain.engine.tracing.meta.elementwise_rules import new_meta


@pytest.fixture
def wrong_rule(monkeypatch):
    """The rule of exp says that its result is contiguous, whatever it is given."""
    monkeypatch.setitem(operation_rules.RULES, "exp", lambda x: new_meta(x.shape, x.dtype))
    monkeypatch.setattr(trial_run, "_learned", {})


def depends_on_layout(x):
    y = x.t().exp()
    return y * 2 if y.is_contiguous() else y.as_strided((2,), (1,))


def test_a_wrong_prediction_is_learned_before_anything_is_wrong(wrong_rule):
    x = torch.randn(3, 2)
    f = ft.jit(depends_on_layout)
    for _ in range(2):
        assert torch.equal(f(x), depends_on_layout(x))
    assert len(f.traces) == 1


def test_what_is_donated_is_not_lost_by_a_wrong_prediction(wrong_rule):
    def step(state):
        y = state["w"].t().exp()
        v = y * 2 if y.is_contiguous() else y.as_strided((2, 3), (3, 1))
        return {"w": state["w"] - v.sum(), "v": state["v"] * 0.5}

    w, v = torch.randn(3, 2), torch.ones(20, 1000)
    expected = step({"w": w, "v": v})
    found = ft.jit(step, donate=0)({"w": w.clone(), "v": v.clone()})
    torch.testing.assert_close(found, expected)


def test_in_a_scan_too(wrong_rule):
    def step(c, x):
        return c + depends_on_layout(x).sum(), c

    xs = torch.randn(4, 3, 2)
    expected = ft.fold(step, torch.zeros(()), xs)
    found = ft.jit(lambda c, xs: ft.scan(step, c, xs), donate=0)(torch.zeros(()), xs)
    torch.testing.assert_close(found, expected)


def test_after_too_many_lessons_it_runs_as_recorded(wrong_rule, monkeypatch):
    monkeypatch.setattr(Mispredicted, "learn", lambda self: None)
    x = torch.randn(3, 2)
    assert torch.equal(ft.jit(lambda x: x.t().exp() + 1)(x), x.t().exp() + 1)


def test_a_variable_of_the_environment_runs_programs_as_recorded(monkeypatch):
    monkeypatch.setenv("FUNCTRAIN_REPLAY", "1")
    p, b = torch.randn(130, 130), torch.randn(130, 130)
    f = ft.jit(lambda p, b: p - 0.1 * (p @ b), donate=0)
    expected = p - 0.1 * (p @ b)
    assert torch.equal(f(p, b), expected)  # to the bit: nothing is fused


def test_an_operation_that_was_tried_does_not_bind_the_trace_to_where_its_argument_stands():
    memory = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(0))
    f = ft.engine.jit(lambda x: torch.linalg.qr(x)[1] * 2)
    for x in memory:
        assert torch.equal(f(x), torch.linalg.qr(x)[1] * 2)
    assert len(f.traces) == 1
