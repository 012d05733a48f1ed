"""The loop around any pure step."""

import attrs
import pytest
import torch
from training_problems import noting, problem

import functrain as ft
from functrain import data, metrics, tree
from functrain.errors import InvalidArgument, RunMismatch, SourceEnded

KEY = ft.random.key(7)
WAYS = [dict(jit=False, chunk=1), dict(jit=False, chunk=5), dict(jit="aten", chunk=1), dict(jit="aten", chunk=3)]


def least_squares(state, batch):
    """One step of least squares, with its own logs."""

    def loss_of(w):
        return ((batch.input @ w - batch.target.double()) ** 2).mean()

    loss, gradient = ft.value_and_grad(loss_of)(state["w"])
    near = metrics.mean(lambda p, t: (p - t).abs() < 1).update(
        metrics.accuracy.init(), batch.input @ state["w"], batch.target.double()
    )
    log = {"loss": loss, "near": ft.Measured(metrics.accuracy, near)}
    return {"w": state["w"] - 0.05 * gradient, "n": state["n"] + 1}, log


def valued(state, batch):
    return {"error": ((batch.input @ state["w"] - batch.target.double()) ** 2).mean()}


def begin():
    _, _, train, valid = problem()
    inputs, targets = train.dataset.arrays
    rows = data.ArrayDataset((inputs.double(), targets))
    state = {"w": torch.zeros(4, dtype=torch.float64), "n": torch.tensor(0)}
    return state, data.loader(rows, train.sampler), data.loader(rows, valid.sampler)


@pytest.mark.parametrize("options", WAYS)
def test_it_is_a_fold_of_the_step(options):
    state, train, valid = begin()
    run = ft.loop(least_squares, state, key=KEY, train=train, epochs=2, valid=valid, evaluate=valued, **options)
    by_hand, means = state, []
    for epoch in range(2):
        total = rows = 0.0
        for batch in data.batches(train, KEY, epoch):
            by_hand, logs = least_squares(by_hand, batch)
            total, rows = total + float(logs["loss"]) * len(batch.target), rows + len(batch.target)
        means.append(total / rows)
    assert not tree.differences(run.state, by_hand, rtol=1e-9)
    assert run.history["train/loss"] == pytest.approx(means, rel=1e-9)
    whole = valued(by_hand, data.as_batch(train.dataset[:]))["error"]
    assert run.history["valid/error"][-1] == pytest.approx(float(whole), rel=1e-9)
    assert 0 <= run.history["train/near"][0] <= 1
    assert tree.equal(state, begin()[0]), "the given state stays as it is"
    assert run.finished and int(run.state["n"]) == 14


def test_chunks_give_the_same_bits_and_all_ways_the_same_numbers():
    runs = []
    for options in WAYS:
        state, train, _ = begin()
        callbacks = [ft.callbacks.record()]
        runs.append(ft.loop(least_squares, state, key=KEY, train=train, epochs=2, callbacks=callbacks, **options))
    for one, other in (runs[:2], runs[2:]):
        assert one.history == other.history
        assert tree.equal((one.state, one.memory), (other.state, other.memory))
    eager, compiled = runs[0], runs[2]
    assert not tree.differences((eager.state, eager.memory), (compiled.state, compiled.memory), rtol=1e-9)


@pytest.mark.parametrize("options", WAYS)
@pytest.mark.parametrize("scope", [None, "epoch", "batch"])
def test_a_step_may_stop(options, scope):
    state, train, _ = begin()

    def step(state, batch):
        state, logs = least_squares(state, batch)
        return ft.Stop(state, logs, when=state["n"] == 3, scope=scope, reason="three are enough")

    run = ft.loop(step, state, key=KEY, train=train, epochs=2, **options)
    if scope is None:
        assert int(run.state["n"]) == 3
        assert (run.stopped.scope, run.stopped.batch, run.stopped.reason) == ("fit", 2, "three are enough")
        on = ft.loop(step, run, key=KEY, train=train, **options)
        whole = ft.loop(least_squares, state, key=KEY, train=train, epochs=2, **options)
        assert tree.equal(on.state, whole.state) and on.history == whole.history
    else:
        assert int(run.state["n"]) == (3 + 7 if scope == "epoch" else 14)
        assert run.stopped is None and len(run.history) == 2


@pytest.mark.parametrize("options", WAYS)
def test_it_goes_on_from_a_stop_of_a_handler(options):
    state, train, valid = begin()
    whole = ft.loop(least_squares, state, key=KEY, train=train, epochs=2, valid=valid, evaluate=valued, **options)

    def stop(run):
        fired = run.memory["stop"]
        now = fired == 0 and run.epoch == 1
        return ft.Stop(ft.train.remember(run, "stop", fired + now), scope="fit", when=now)

    for event in ("begin_epoch", "after_chunk", "begin_validate", "after_validate"):
        callbacks = [ft.Callback("stop", {event: stop}, memory=0, phases=("train", "valid"))]
        more = dict(valid=valid, evaluate=valued, callbacks=callbacks, **options)
        run = ft.loop(least_squares, state, key=KEY, train=train, epochs=2, **more)
        assert run.stopped.event == event
        on = ft.loop(least_squares, run, key=KEY, train=train, **more)
        assert tree.equal(on.state, whole.state) and on.history == whole.history


def test_host_events_come_and_step_events_are_refused():
    state, train, _ = begin()
    notes = []
    ft.loop(least_squares, state, key=KEY, train=train, epochs=1, callbacks=[noting(ft.train.HOST_EVENTS, notes)])
    assert [n[0] for n in notes[:2]] == ["begin_fit", "begin_epoch"]
    assert [n[0] for n in notes].count("after_batch") == 7
    inside = ft.Callback("inside", {"after_grads": lambda step: None})
    with pytest.raises(
        InvalidArgument, match="callback 'inside' handles 'after_grads', an event inside the step of fit"
    ):
        ft.loop(least_squares, state, key=KEY, train=train, epochs=1, callbacks=[inside])


def test_any_iterable_and_any_carry():
    def step(state, numbers):
        return state + numbers.sum(), {"sum": numbers.sum()}

    batches = [torch.ones(3), torch.ones(2)]
    for jit in (False, "aten"):
        run = ft.loop(step, torch.tensor(0.0), key=KEY, train=batches, epochs=2, jit=jit)
        assert float(run.state) == 10
        assert run.history["train/sum"] == [pytest.approx((3 * 3 + 2 * 2) / 5)] * 2
        run = ft.loop(step, torch.tensor(0.0), key=KEY, train=(b for b in batches), steps=2, jit=jit)
        assert float(run.state) == 5
        with pytest.raises(SourceEnded, match="train gave 2 batches, and 3 were planned") as caught:
            ft.loop(step, torch.tensor(0.0), key=KEY, train=(b for b in batches), steps=3, jit=jit, chunk=1)
        assert float(caught.value.run.state) == 5


def test_wrong_arguments_are_named():
    state, train, valid = begin()

    def fit(step=least_squares, **options):
        return ft.loop(step, state, **{"key": KEY, "train": train, "epochs": 1, **options})

    with pytest.raises(InvalidArgument, match="pass valid and evaluate together"):
        fit(valid=valid)
    with pytest.raises(InvalidArgument, match="train has no length"):
        fit(train=iter([1]))
    for log in (torch.ones(2), torch.ones(1)):
        with pytest.raises(InvalidArgument, match="the log 'loss' of the step must be a real scalar or Measured"):
            fit(step=lambda state, batch, log=log: (state, {"loss": log}))
    stopped = fit(callbacks=[ft.Callback("stop", {"after_chunk": lambda run: ft.Stop(run, scope="fit")})])
    with pytest.raises(RunMismatch, match="begun with epochs 1, and now epochs 2"):
        ft.loop(
            least_squares, stopped, key=KEY, train=train, epochs=2, callbacks=[attrs.evolve(ft.Callback("stop", {}))]
        )
