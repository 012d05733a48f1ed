"""A compiled fit whose steps run as plain Python for once, because something looks at them, is the same fit."""

import contextlib

import pytest
import torch
from training_problems import problem

import functrain as ft
from functrain import tree


def identity(tensor):
    return tensor


SURROUNDINGS = {
    "anomalies": lambda: torch.autograd.set_detect_anomaly(True),
    "hooks": lambda: torch.autograd.graph.saved_tensors_hooks(identity, identity),
    "save on cpu": torch.autograd.graph.save_on_cpu,
}


@contextlib.contextmanager
def several():
    with torch.autograd.set_detect_anomaly(True), torch.autograd.graph.save_on_cpu():
        yield


SURROUNDINGS["several"] = several


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_it_is_the_same_fit(name, jit, chunk):
    learner, state, train, valid = problem()
    options = dict(train=train, valid=valid, epochs=2, jit=jit, chunk=chunk, callbacks=[ft.callbacks.record()])
    whole = ft.fit(learner, state, **options)
    with SURROUNDINGS[name]():
        run = ft.fit(learner, state, **options)
        value = ft.evaluate(learner, run.state, valid, jit=jit, chunk=chunk)
    assert not tree.differences(run.state, whole.state, rtol=1e-4, atol=1e-5)
    for column in whole.history.columns:
        assert run.history[column] == pytest.approx(whole.history[column], rel=1e-4)
    assert value == pytest.approx(ft.evaluate(learner, whole.state, valid), rel=1e-4)


@pytest.mark.parametrize("name", ["hooks", "save on cpu"])
def test_a_run_goes_on_in_other_surroundings(name):
    learner, state, train, valid = problem()
    stop = ft.Callback(
        "stop", {"after_chunk": lambda run: ft.Stop(run, scope="fit") if (run.epoch, run.step) == (0, 3) else None}
    )
    options = dict(train=train, valid=valid, callbacks=[stop], chunk=1)
    whole = ft.fit(learner, state, train=train, valid=valid, epochs=2)
    for first, then in ((False, "aten"), ("aten", False), ("aten", "aten")):
        stopped = ft.fit(learner, state, epochs=2, jit=first, **options)
        with SURROUNDINGS[name]():
            run = ft.fit(learner, stopped, jit=then, **options)
        assert run.history["train/loss"] == pytest.approx(whole.history["train/loss"], rel=1e-4)
