"""The events around the step, and what their handlers and stops do."""

import math

import attrs
import pytest
import torch
from training_problems import Rows, eager, noting, problem

import functrain as ft
from functrain import data, metrics, nn, optim, tree
from functrain.errors import (
    InvalidArgument,
    InvalidCallbackResult,
    NotATensor,
)


@pytest.fixture(scope="module")
def small():
    return problem()


def test_every_host_event_comes_in_its_order():
    learner, state, train, valid = problem(n=16)
    notes = []
    eager(learner, state, train, valid, epochs=1, callbacks=[noting(ft.train.HOST_EVENTS, notes)])
    training = [
        (event, "train", step)
        for i in (0, 1)
        for event, step in (("begin_batch", i), ("after_batch", i + 1), ("after_chunk", i + 1))
    ]
    validation = [("begin_batch", "valid", 0), ("after_batch", "valid", 1), ("after_chunk", "valid", 1)]
    assert [note[0] for note in notes[:2]] == ["begin_fit", "begin_epoch"]
    assert notes[2:8] == training
    assert notes[8][:2] == ("begin_validate", "valid")
    assert notes[9:12] == validation
    assert [note[0] for note in notes[12:]] == ["after_validate", "after_epoch", "after_fit"]


# Row 44 of the lesson: what a cancelled event took out of one epoch of two batches and one validation batch.
CANCELS = {
    "begin_fit": dict(updates=0, valid=0, epochs=0),
    "begin_epoch": dict(updates=0, valid=2, epochs=2),
    "begin_batch": dict(updates=0, valid=2, epochs=2),
    "begin_step": dict(updates=0, valid=2, epochs=2),
    "after_pred": dict(updates=0, valid=2, epochs=2),
    "after_loss": dict(updates=0, valid=2, epochs=2),
    "after_grads": dict(updates=0, valid=2, epochs=2),
    "after_step": dict(updates=4, valid=2, epochs=2),
    "after_batch": dict(updates=4, valid=2, epochs=2),
    "begin_validate": dict(updates=4, valid=0, epochs=2),
    "after_epoch": dict(updates=2, valid=1, epochs=1),
}


@pytest.mark.parametrize("event", CANCELS)
def test_what_a_stop_without_a_scope_cancels(event):
    learner, state, train, valid = problem(n=16)
    notes = []
    callbacks = [
        ft.Callback("cancel", {event: lambda run: ft.Stop(run)}),
        noting(["after_batch", "after_epoch", "after_fit"], notes),
    ]
    result = eager(learner, state, train, valid, callbacks=callbacks)
    got = dict(
        updates=int(result.state.updates),
        valid=sum(note[:2] == ("after_batch", "valid") for note in notes),
        epochs=len(result.history),
    )
    assert got == CANCELS[event]
    assert notes[-1][0] == "after_fit"
    assert (result.stopped is not None) == (event in ("begin_fit", "after_epoch"))
    if event not in ("begin_fit", "after_epoch"):
        assert int(result.state.step) == 4  # what is skipped counts as done


@pytest.mark.parametrize(
    "event", [e for e in ft.train.EVENTS if e not in ("begin_validate", "after_validate", "after_fit")]
)
def test_a_stop_of_the_fit_from_anywhere_ends_it(event):
    learner, state, train, valid = problem(n=16)
    notes = []
    callbacks = [
        ft.Callback("end", {event: lambda run: ft.Stop(run, scope="fit", reason="enough")}),
        noting(["after_fit"], notes),
    ]
    result = eager(learner, state, train, valid, callbacks=callbacks)
    assert (result.stopped.scope, result.stopped.event, result.stopped.reason) == ("fit", event, "enough")
    assert "enough" in str(result.stopped)
    assert len(notes) == 1
    assert int(result.state.updates) <= 2


def test_memory_is_threaded_through_the_run():
    learner, state, train, _ = problem(n=16)

    def count(run):
        return ft.train.remember(run, "count", run.memory["count"] + 1)

    def add(step):
        return attrs.evolve(step, memory={**step.memory, "add": step.memory["add"] + step.loss.detach()})

    callbacks = [
        ft.Callback("count", {"after_batch": count}, memory=0),
        ft.Callback("add", {"after_loss": add}, memory=torch.tensor(0.0)),
    ]
    for jit in (False, "aten"):
        result = ft.fit(learner, state, train=train, epochs=2, callbacks=callbacks, jit=jit)
        assert result.memory["count"] == 4
        assert float(result.memory["add"]) == pytest.approx(2 * sum(result.history["train/loss"]), rel=1e-5)


def test_a_handler_may_change_the_state_and_the_batch():
    learner, state, train, _ = problem(n=16, optimizer=optim.sgd(lr=0.0))

    def zero(run):
        return attrs.evolve(run, state=attrs.evolve(run.state, params=tree.zeros_like(run.state.params)))

    def blank(run):
        return attrs.evolve(run, batch=attrs.evolve(run.batch, input=torch.zeros_like(run.batch.input)))

    for jit in (False, "aten"):
        result = ft.fit(
            learner, state, train=train, epochs=1, jit=jit, callbacks=[ft.Callback("zero", {"begin_epoch": zero})]
        )
        assert result.history[0]["train/loss"] == pytest.approx(math.log(3))
        changed = ft.fit(
            learner, state, train=train, epochs=1, jit=jit, callbacks=[ft.Callback("blank", {"begin_batch": blank})]
        )
        assert float(changed.state.buffers["1"]["running_var"].max()) < 1


def test_a_state_that_a_callback_keeps_is_not_overwritten():
    learner, state, train, _ = problem()

    def keep(run):
        return ft.train.remember(run, "keep", (*run.memory["keep"], run.state))

    results = {
        jit: ft.fit(
            learner, state, train=train, epochs=3, jit=jit, callbacks=[ft.Callback("keep", {"after_epoch": keep})]
        )
        for jit in (False, "aten")
    }
    kept = {jit: result.memory["keep"] for jit, result in results.items()}
    assert [int(s.step) for s in kept["aten"]] == [7, 14, 21]
    for plain, compiled in zip(kept[False], kept["aten"], strict=True):
        assert not tree.differences(plain, compiled, rtol=1e-4, atol=1e-5)


def test_after_fit_runs_when_a_callback_fails():
    learner, state, train, _ = problem(n=16)
    notes = []

    def fail(run):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        eager(
            learner, state, train, callbacks=[ft.Callback("fail", {"after_epoch": fail}), noting(["after_fit"], notes)]
        )
    assert len(notes) == 1


@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.parametrize(
    ("event", "step", "rows"),
    [("after_batch", 6, 1), ("after_chunk", 10, 1), ("begin_epoch", 5, 1), ("after_epoch", 10, 1)],
)
def test_after_fit_sees_where_a_fit_that_failed_had_come_to(jit, event, step, rows):
    learner, state, train, valid = problem(batch_size=10)

    def fail(run):
        if run.epoch == 1:
            raise KeyboardInterrupt

    def keep(run):
        return found.append((int(run.state.step), len(run.history), run.memory["count"]))

    def count(run):
        return ft.train.remember(run, "count", run.memory["count"] + 1)

    found = []
    callbacks = [
        ft.Callback("count", {"begin_epoch": count}, memory=0),
        ft.Callback("fail", {event: fail}),
        ft.Callback("keep", {"after_fit": keep}),
    ]
    with pytest.raises(KeyboardInterrupt) as caught:
        ft.fit(learner, state, train=train, valid=valid, epochs=3, callbacks=callbacks, jit=jit)
    assert found == [(step, rows, 1 if event == "begin_epoch" else 2)]
    assert any("raised in epoch 2 of 3" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("jit", [False, "aten"])
def test_a_dataset_that_raises_leaves_the_state_for_after_fit_to_keep(jit):
    learner, state, train, _ = problem()

    class Failing(Rows):
        def __getitem__(self, index):
            if index == 20:
                raise OSError("gone")
            return self.rows[index]

    kept = []
    rows = data.loader(Failing(train.dataset), data.sequential(8))
    with pytest.raises(OSError, match="gone") as caught:
        keep = ft.Callback("keep", {"after_fit": lambda run: kept.append(run.state)})
        ft.fit(learner, state, train=rows, epochs=2, callbacks=[keep], jit=jit, chunk=1)
    by_hand, _ = ft.fold(
        ft.train_step(learner), ft.plan(state, 7, 2), list(data.batches(data.loader(train.dataset, rows.sampler)))[:2]
    )
    assert not tree.differences(kept[0], by_hand, rtol=1e-4, atol=1e-5)
    assert "raised in epoch 1 of 2, phase 'train', batch 2; error.run is the run up to there" in caught.value.__notes__
    assert tree.equal(caught.value.run.state, kept[0])


def test_what_after_fit_raises_does_not_hide_why_the_fit_failed():
    learner, state, train, _ = problem(n=16)
    notes = []

    def raiser(kind, message):
        def handler(run):
            raise kind(message)

        return handler

    callbacks = [
        ft.Callback("first", {"after_epoch": raiser(OSError, "disk full")}),
        ft.Callback("second", {"after_fit": raiser(ValueError, "no more")}),
        noting(["after_fit"], notes),
    ]
    with pytest.raises(OSError, match="disk full") as caught:
        eager(learner, state, train, callbacks=callbacks)
    assert "then after_fit of callback 'second' raised ValueError: no more" in caught.value.__notes__
    assert len(notes) == 1


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("event", ["begin_step", "after_pred", "after_loss"])
def test_a_handler_that_mixes_rows_never_sees_padding(event, chunk):
    learner, state, train, valid = problem(model=nn.dense(3), optimizer=optim.sgd(lr=0.1))

    def mixed(rows):
        return rows - rows.mean(0)

    def mix(step):
        if event == "begin_step":
            return attrs.evolve(step, batch=attrs.evolve(step.batch, input=mixed(step.batch.input)))
        if event == "after_pred":
            return attrs.evolve(step, prediction=mixed(step.prediction))
        return attrs.evolve(step, loss=step.losses.square().mean())

    mixing = ft.Callback("mix", {event: mix}, phases=("train", "valid") if event != "after_loss" else ("train",))
    plain, compiled = (
        ft.fit(learner, state, train=train, valid=valid, epochs=2, jit=jit, callbacks=[mixing], chunk=chunk)
        for jit in (False, "aten")
    )
    assert not tree.differences(plain.state, compiled.state, rtol=1e-5, atol=1e-6)
    assert plain.history["valid/loss"] == pytest.approx(compiled.history["valid/loss"], rel=1e-5)


def test_a_stop_says_its_batch_only_where_it_was_at_one():
    def stopped(event, **at):
        return str(ft.train.Stopped("fit", "enough", "mine", event, epoch=1, **at))

    assert stopped("after_epoch") == "fit stopped by 'mine' at after_epoch, epoch 2: enough"
    assert stopped("after_batch", batch=4) == "fit stopped by 'mine' at after_batch, epoch 2, batch 4: enough"
    said = stopped("after_batch", phase="noisy", batch=4)
    assert said == "fit stopped by 'mine' at after_batch, epoch 2, noisy, batch 4: enough"


def test_the_memory_of_a_step_handler_is_a_tree_of_tensors():
    with pytest.raises(
        NotATensor, match=r"memory of callback 'n', whose step handlers .*: it must be a tensor, got int"
    ):
        ft.Callback("n", {"after_grads": lambda step: None, "after_epoch": lambda run: None}, memory=0)
    assert ft.Callback("n", {"after_epoch": lambda run: None}, memory=0).memory == 0


def test_one_callback_or_metric_in_place_of_several_is_an_error(small):
    learner, state, train, _ = small
    with pytest.raises(InvalidArgument, match="callbacks must be a list of Callback records, got Callback"):
        eager(learner, state, train, callbacks=ft.callbacks.record())
    with pytest.raises(InvalidArgument, match="metrics must be a dict by name"):
        attrs.evolve(learner, metrics=[metrics.accuracy])


def test_a_handler_that_returns_something_else_is_named():
    learner, state, train, _ = problem(n=16)
    odd = ft.Callback("odd", {"after_epoch": lambda run: run.logs})
    with pytest.raises(InvalidCallbackResult, match="callback 'odd', event 'after_epoch': a handler must return a Run"):
        eager(learner, state, train, callbacks=[odd])
