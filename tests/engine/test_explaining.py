"""`explain`: what is known of a compiled function, as a record and as words; and PyTorch's detection of anomalies."""

import re

import attrs
import pytest
import torch

import functrain as ft
from functrain import data, losses, nn, optim
from functrain.engine import grad, jit

P, X = {"w": torch.eye(3), "b": torch.zeros(3)}, torch.ones(2, 3)
SCALE, LARGE = torch.ones(3), torch.ones(5000)


def step(params, x, rate):
    def loss(p):
        return torch.tanh(x @ p["w"] + p["b"]).sum() * LARGE.sum()

    if SCALE[0] > 0:
        return {k: params[k] - rate * g for k, g in grad(loss)(params).items()}
    return params


def fresh():
    return {k: v.clone() for k, v in P.items()}


def test_a_function_that_was_not_called_has_nothing_to_tell():
    told = jit(step).explain()
    assert (told.name, told.backend, told.signatures, told.seconds) == ("step", "aten", (), 0.0)
    assert repr(told) == "step: 0 traces, backend 'aten', 0.0 ms"


def test_each_trace_is_told():
    fast = jit(step, donate="params")
    fast(fresh(), X, 0.1)
    fast(fresh(), X, 0.1)
    fast(fresh(), X, 0.2)
    told = fast.explain()
    assert [s.reason for s in told.signatures] == ["first call", "rate: 0.1 became 0.2"]
    work = told.signatures[1].work
    assert work.arguments == {
        "params.w": "float32(3, 3)",
        "params.b": "float32(3,)",
        "x": "float32(2, 3)",
        "rate": "0.2",
    }
    assert (work.backend, work.devices) == ("aten", ("cpu",))
    assert work.donated == work.reused == ("params.w", "params.b")
    assert (work.closed_over, work.compared) == (2, 1)
    recorded = [n for n in fast.traces[1].graph.graph.nodes if n.op == "call_function"]
    assert work.operations == len(recorded)
    assert sum(work.inferred.values()) <= len(recorded)
    assert work.inferred["rule"] > 5
    assert told.seconds == sum(t.seconds_traced + t.seconds_compiled for t in fast.traces)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        told.name = "other"  # pyright: ignore


def test_kernels_are_the_calls_that_are_made():
    fast = jit(lambda x: torch.exp(x * 2) @ x.t() + 1)
    fast(X)
    work = fast.explain().signatures[0].work
    body = fast._entries[0].compiled.source
    assert work.kernels == len(re.findall(r"^        \S.*\(.*\)$", body, re.MULTILINE))
    assert work.in_place == body.count("_(")


def test_the_words():
    fast = jit(step, donate="params")
    fast(fresh(), X, 0.1)
    words = re.sub(r"[\d.]+ ms", "N ms", repr(fast.explain()))
    assert words.startswith(
        "step: 1 trace, backend 'aten', N ms\n1. first call\n   arguments    params.w: float32(3, 3),"
    )
    assert re.search(r"traced       N ms, \d+ operations \(.*\d+ by own rules", words)
    assert re.search(r"compiled     N ms by 'aten' for cpu, \d+ calls of kernels, \d+ of them in place", words)
    assert "donated      params.w, params.b; 2 hold a result" in words
    assert "closed over  2 tensors, the values of 1 compared" in words


def test_a_trial_run_and_a_replay_are_told():
    fast = jit(lambda x: torch.linalg.svdvals(x), backend="replay")
    fast(X)
    work = fast.explain().signatures[0].work
    assert work.inferred.get("trial", 0) >= 1
    assert (work.backend, work.kernels, work.in_place) == ("replay", None, None)


def broken(p, x):
    return (torch.sqrt(p["b"] * 0) * x).sum()  # an infinite slope times zero


def test_anomalies_are_detected_around_a_jitted_call_compiled_before_or_not():
    fast = jit(lambda p, x: grad(broken)(p, x))
    for _ in range(2):
        with (
            torch.autograd.set_detect_anomaly(True),
            pytest.warns(UserWarning, match=r"an infinite slope times zero"),
            pytest.raises(RuntimeError, match=r"returned nan values in its 0th output"),
        ):
            fast(P, X)
        assert fast(P, X)["b"].isnan().all()
    assert len(fast.traces) == 1


def test_anomaly_detection_changes_no_number():
    fast = jit(step)
    expected = fast(P, X, 0.1)
    with torch.autograd.set_detect_anomaly(True):
        torch.testing.assert_close(fast(P, X, 0.1), expected)
        assert "aten.tanh_backward" in jit(step).lower(P, X, 0.1).code
        assert torch.is_anomaly_enabled()


def test_a_fit_runs_with_anomaly_detection_and_stops_at_the_first_nan():
    def fit(loss):
        learner = ft.Learner(nn.serial(nn.dense(3)), loss, optim.sgd(lr=0.1))
        examples = data.ArrayDataset((torch.ones(8, 3), torch.arange(8) % 3))
        loader = data.loader(examples, data.sequential(batch_size=4))
        return ft.fit(learner, ft.init(learner, ft.random.key(0), examples[:1]), train=loader, epochs=1)

    expected = fit(losses.cross_entropy)
    with torch.autograd.set_detect_anomaly(True):
        result = fit(losses.cross_entropy)
        torch.testing.assert_close(result.state.params, expected.state.params)
        with pytest.warns(UserWarning, match="Error detected in"), pytest.raises(RuntimeError, match="nan values"):
            fit(lambda pred, target: torch.sqrt(pred[:, 0] * 0))
