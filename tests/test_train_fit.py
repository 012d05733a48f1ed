"""The loop: folds of the step that end early, resume anywhere, and give every callback its word."""

import math

import attrs
import pytest
import torch

import functrain as ft
from functrain import data, losses, metrics, nn, optim, schedule, tree
from functrain.errors import (
    DtypeMismatch,
    InvalidArgument,
    InvalidCallbackResult,
    LabelOutOfRange,
    NotATensor,
    RunInProgress,
    ShapeMismatch,
    TreeMismatch,
)


def problem(n=50, remainder="keep", batch_size=8, model=None, optimizer=None):
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(n, 4, generator=generator)
    rows = data.ArrayDataset((inputs, (inputs.sum(1) > 0).long() + (inputs[:, 0] > 1).long()))
    model = nn.serial(nn.dense(6), nn.batch_norm(), nn.relu, nn.dropout(0.2), nn.dense(3)) if model is None else model
    optimizer = optim.sgd(lr=schedule.one_cycle(0.05, 0.2, 0.01), momentum=0.9) if optimizer is None else optimizer
    learner = ft.Learner(model, losses.cross_entropy, optimizer, {"accuracy": metrics.accuracy})
    state = ft.init(learner, ft.random.key(0), rows[:1])
    train = data.loader(rows, data.shuffled(batch_size, remainder=remainder))
    valid = data.loader(rows, data.sequential(2 * batch_size))
    return learner, state, train, valid


@pytest.fixture(scope="module")
def small():
    return problem()


def eager(learner, state, train, valid=None, **options):
    return ft.fit(learner, state, train=train, valid=valid, jit=False, **{"epochs": 2, **options})


# What a fit is


@pytest.mark.parametrize("remainder", ["keep", "drop", "pad"])
def test_a_fit_is_a_fold_of_the_step(remainder):
    learner, state, train, _ = problem(remainder=remainder)
    result = eager(learner, state, train)
    by_hand = ft.plan(state, len(train), 2)
    step, key = ft.train_step(learner), ft.random.fold_in(state.key, "data", 0)
    for epoch in range(2):
        by_hand, _ = ft.fold(step, by_hand, data.batches(train, key, epoch))
    assert not tree.differences(result.state, by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stop", [None, 5])
def test_an_eager_fit_is_the_same_in_chunks_of_any_size(small, stop):
    learner, state, train, valid = small
    rows = []
    note = ft.Callback("note", {"after_chunk": lambda run: rows.append(run.logs["loss"])})
    callbacks = [note] if stop is None else [note, stopping_at(stop)]
    results = []
    for chunk in (1, 3, 1000):
        result = eager(learner, state, train, valid, callbacks=callbacks, chunk=chunk)
        results.append((result.state, result.history, result.stopped, torch.cat(rows)))
        rows.clear()
    for got in results[1:]:
        assert got[1:3] == results[0][1:3]
        assert tree.equal((got[0], got[3]), (results[0][0], results[0][3]))


def test_the_given_state_stays_as_it_is(small):
    learner, state, train, valid = small
    before = tree.map(torch.clone, state)
    for jit in (False, "aten"):
        ft.fit(learner, state, train=train, valid=valid, epochs=1, jit=jit)
        assert tree.equal(state, before)


def test_the_same_key_gives_the_same_numbers_and_another_gives_others(small):
    learner, state, train, valid = small
    first, second = (eager(learner, state, train, valid) for _ in range(2))
    assert tree.equal(first.state, second.state)
    assert first.history == second.history
    other = eager(learner, ft.init(learner, ft.random.key(1), train.dataset[:1]), train, valid)
    assert other.history != first.history


def test_history_has_losses_metrics_and_hyperparameters(small):
    history = eager(*small).history
    assert set(history.columns) >= {"epoch", "train/loss", "train/accuracy", "valid/loss", "valid/accuracy", "lr"}
    assert history["epoch"] == [1, 2]
    assert history["lr"][-1] == pytest.approx(0.01)


def test_validation_is_as_one_big_batch_would_give_it(small):
    learner, _, train, _ = small
    state = eager(learner, small[1], train).state
    rows = train.dataset
    whole = ft.eval_step(learner)(state, rows[:])
    for size in (1, 7, 49, 50, 1000):
        for jit in (False, "aten"):
            got = ft.evaluate(learner, state, data.loader(rows, data.sequential(size)), jit=jit)
            assert got["loss"] == pytest.approx(float(whole["loss"]), rel=1e-5)
            assert got["accuracy"] == pytest.approx(float(whole["accuracy"]), rel=1e-12)


# Resuming


def stopping_at(step):
    """A callback that ends the fit before the batch `step` of the run."""
    stop = {"begin_step": lambda s: ft.Stop(s, scope="fit", when=s.state.step == step)}
    return ft.Callback("at", stop, padding_safe=True)


def test_a_run_stopped_and_resumed_at_every_step_is_the_uninterrupted_run_bitwise(small):
    learner, state, train, valid = small
    whole = eager(learner, state, train, valid)
    for step in range(2 * len(train)):
        stopped = eager(learner, state, train, valid, callbacks=[stopping_at(step)])
        assert int(stopped.state.step) == step
        assert (stopped.stopped.epoch, stopped.stopped.step) == divmod(step, len(train))
        resumed = eager(learner, stopped.state, train, valid)
        assert tree.equal(resumed.state, whole.state), step


def test_a_finished_state_begins_a_new_run_with_other_draws(small):
    learner, state, train, valid = small
    first = eager(learner, state, train, valid, epochs=1)
    second = eager(learner, first.state, train, valid, epochs=3)
    assert int(second.state.step) == 4 * len(train)
    assert second.history["epoch"] == [1, 2, 3]
    assert second.history["lr"][-1] == pytest.approx(0.01)


def test_a_state_inside_another_run_is_an_error(small):
    learner, state, train, valid = small
    stopped = eager(learner, state, train, valid, callbacks=[stopping_at(3)])
    with pytest.raises(RunInProgress, match=r"at step 3 of a run planned for 2 epochs and 14 steps; this call plans 5"):
        eager(learner, stopped.state, train, valid, epochs=5)
    again = ft.plan(stopped.state, len(train), 5)
    assert int(eager(learner, again, train, epochs=5).state.step) == 3 + 5 * len(train)


# Compiled equals eager


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("stop", [None, 9])
def test_compiled_equals_eager_for_any_chunk(small, chunk, stop):
    learner, state, train, valid = small
    callbacks = [ft.callbacks.record()] + ([] if stop is None else [stopping_at(stop)])
    expected = eager(learner, state, train, valid, callbacks=callbacks)
    got = ft.fit(learner, state, train=train, valid=valid, epochs=2, callbacks=callbacks, chunk=chunk)
    assert not tree.differences(got.state, expected.state, rtol=1e-4, atol=1e-5)
    assert got.stopped == expected.stopped
    assert not tree.differences(got.memory["record"], expected.memory["record"], rtol=1e-4, atol=1e-5)
    for row, other in zip(got.history, expected.history, strict=True):
        assert row == pytest.approx(other, rel=1e-4)


def test_compiled_by_inductor_equals_eager(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FUNCTRAIN_CACHE", str(tmp_path))
    learner, state, train, valid = small
    expected = eager(learner, state, train, valid, callbacks=[stopping_at(9)])
    options = dict(train=train, valid=valid, epochs=2, callbacks=[stopping_at(9)], jit="inductor", chunk=4)
    got = ft.fit(learner, state, **options)
    assert not tree.differences(got.state, expected.state, rtol=1e-4, atol=1e-5)
    assert got.stopped == expected.stopped
    # One loop for training and one for validation, short last batch, short last chunk and stop included.
    assert capsys.readouterr().err.count("compiling") == 2


def test_a_model_that_mixes_rows_is_not_padded_and_says_so():
    centred = attrs.evolve(nn.serial(lambda x: x - x.mean(0)), padding_safe=False)
    mixing = nn.serial(centred, nn.dense(3))
    learner, state, train, _ = problem(model=mixing)
    with pytest.warns(UserWarning, match="mixes the rows of a batch"):
        got = ft.fit(learner, state, train=train, epochs=1)
    by_hand = ft.plan(state, len(train), 1)
    key = ft.random.fold_in(state.key, "data", 0)
    by_hand, _ = ft.fold(ft.train_step(learner), by_hand, data.batches(train, key, 0))
    assert not tree.differences(got.state.params, by_hand.params, rtol=1e-4, atol=1e-6)


# Callbacks


def noting(events, notes):
    return ft.Callback(
        "note", {e: lambda run, e=e: notes.append((e, run.phase, run.step)) for e in events}, phases=("train", "valid")
    )


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
    assert any("raised by fit in epoch 2 of 3" in note for note in caught.value.__notes__)


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
    assert "raised by fit in epoch 1 of 2, phase 'train', batch 2" in caught.value.__notes__


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
    def signal(event):
        return str(ft.train.Signal("fit", "enough", "mine", event, epoch=1, step=4))

    assert signal("after_epoch") == "fit stopped by 'mine' at after_epoch, epoch 2: enough"
    assert signal("after_batch") == "fit stopped by 'mine' at after_batch, epoch 2, batch 4: enough"


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


# Ready-made callbacks


def test_early_stopping_waits_and_restores_the_best():
    learner, state, train, valid = problem(optimizer=optim.sgd(lr=schedule.lin(0.1, 300.0)))
    stop = ft.callbacks.early_stopping("valid/loss", patience=2, restore_best=True)
    for jit in (False, "aten"):
        result = ft.fit(learner, state, train=train, valid=valid, epochs=30, callbacks=[stop], jit=jit)
        column = result.history["valid/loss"]
        best = min(range(len(column)), key=column.__getitem__)
        assert len(column) == best + 3 < 30
        assert result.memory["early_stopping"].epoch == best
        assert ft.evaluate(learner, result.state, valid)["loss"] == pytest.approx(column[best], rel=1e-5)
        assert f"epoch {best + 1}" in result.stopped.reason


def test_early_stopping_checks_what_it_is_told():
    learner, state, train, _ = problem(n=16)
    for options, message in (
        (dict(patience=0), "patience must be a whole number"),
        (dict(min_delta=-1.0), "min_delta must be at least 0"),
        (dict(mode="least"), "mode must be 'min' or 'max'"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            ft.callbacks.early_stopping(**options)
    with pytest.raises(InvalidArgument, match="monitor must be one of train/loss, train/accuracy"):
        eager(learner, state, train, callbacks=[ft.callbacks.early_stopping("valid_loss")])
    with pytest.raises(InvalidArgument, match="'valid/loss' is not measured in this fit"):
        begun = noting(["begin_epoch"], notes := [])
        eager(learner, state, train, callbacks=[ft.callbacks.early_stopping("valid/loss"), begun])
    assert notes == [], "it is found before an epoch is trained"


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("jit", [False, "aten"])
def test_finite_says_where_and_keeps_the_state_from_before(jit, chunk):
    learner, state, train, _ = problem()
    inputs = train.dataset.arrays[0].clone()
    inputs[17] = float("nan")
    poisoned = data.loader(data.ArrayDataset((inputs, train.dataset.arrays[1])), data.sequential(8))
    result = ft.fit(
        learner, state, train=poisoned, epochs=1, callbacks=[ft.callbacks.finite(gradients=True)], jit=jit, chunk=chunk
    )
    assert (result.stopped.epoch, result.stopped.step, result.stopped.reason) == (0, 2, "the loss is not finite")
    assert int(result.state.step) == 2
    assert all(bool(torch.isfinite(leaf).all()) for leaf in tree.leaves(result.state))
    _, logs = ft.train_step(learner)(result.state, data.as_batch(poisoned.dataset[16:24]))
    assert math.isnan(float(logs["loss"]))


def test_record_has_a_row_a_step(small):
    learner, state, train, valid = small
    recorded = eager(learner, state, train, valid, callbacks=[ft.callbacks.record()]).memory["record"]
    steps = 2 * len(train)
    assert recorded["step"].tolist() == list(range(steps))
    assert {"epoch", "loss", "accuracy", "lr"} <= set(recorded)
    expected = [schedule.one_cycle(0.05, 0.2, 0.01)(step / steps) for step in range(steps)]
    assert recorded["lr"].tolist() == pytest.approx(expected)


def test_progress_prints_a_line_an_epoch_where_there_is_no_terminal(small, capsys):
    learner, state, train, valid = small
    eager(learner, state, train, valid, callbacks=[ft.callbacks.progress(), ft.callbacks.print_table()])
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1/2  train/loss ")
    table = captured.out.strip().splitlines()
    assert len(table) == 3
    assert table[0].split()[:2] == ["epoch", "train/loss"]


def test_progress_draws_a_bar_on_a_terminal(small):
    import io

    from rich.console import Console

    learner, state, train, valid = small
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    for jit in (False, "aten"):
        ft.fit(learner, state, train=train, valid=valid, epochs=2, callbacks=[ft.callbacks.progress(console)], jit=jit)
    assert "14/14" in screen.getvalue()
    assert "batches/s" in screen.getvalue()


# Learning, and bad input


def test_overfitting_one_batch():
    learner, state, train, _ = problem(model=nn.serial(nn.dense(32), nn.relu, nn.dense(3)), optimizer=optim.sgd(lr=0.5))
    for jit in (False, "aten"):
        after, logs = ft.overfit_batch(learner, state, train.dataset[:8], steps=60, jit=jit)
        assert float(logs["loss"][0]) > 0.5
        assert float(logs["loss"][-1]) < 0.05
        assert logs["loss"].shape == (60,)
        assert int(after.step) == 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(epochs=0), "epochs must be a whole number"),
        (dict(epochs=1.5), "epochs must be a whole number"),
        (dict(chunk=0), "chunk must be a whole number"),
        (dict(jit="fast"), "jit must be one of"),
        (dict(jit=True), "jit must be one of"),
        (dict(train=[1, 2]), "train must be a Loader, got list"),
        (dict(state={}), "state must be a TrainState"),
    ],
)
def test_bad_options_are_named(small, options, message):
    learner, state, train, _ = small
    arguments = {"state": state, "train": train, "epochs": 1, **options}
    with pytest.raises(InvalidArgument, match=message):
        ft.fit(learner, **arguments)


@pytest.mark.parametrize(
    ("compute", "got"),
    [
        (lambda acc: {"a": acc.total}, "dict"),
        (lambda acc: 0.5, "float"),
        (lambda acc: acc.total[None], r"float64\(1,\)"),
    ],
)
def test_a_metric_that_computes_no_scalar_is_named_before_training(small, compute, got):
    learner, state, train, _ = small
    metric = attrs.evolve(metrics.accuracy, compute=compute)
    notes = []
    with pytest.raises(NotATensor, match=rf"metrics\['odd'\] must compute a scalar tensor, got {got}; give"):
        eager(attrs.evolve(learner, metrics={"odd": metric}), state, train, callbacks=[noting(["begin_fit"], notes)])
    assert notes == []


class Rows:
    """A dataset that is not of arrays, so that nobody sees its rows before they are asked for."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x, y: (x, y + 7), LabelOutOfRange, "target: .* (labels from|label) "),
        (lambda x, y: (x.double(), y), DtypeMismatch, "in layer 0: dense.*float32, got float64"),
        (lambda x, y: (x[:3], y), ShapeMismatch, r"in layer 0: dense.*\(..., 4\)"),
    ],
)
def test_a_later_batch_that_does_not_fit_is_named_and_leaves_the_state_as_it_was(small, jit, change, error, message):
    learner, state, train, _ = small
    rows = [train.dataset[i] for i in range(50)]
    rows[16:24] = [change(*row) for row in rows[16:24]]
    kept = []
    keep = ft.Callback("keep", {"after_fit": lambda run: kept.append(run.state)})
    with pytest.raises(error, match=message) as caught:
        loader = data.loader(Rows(rows), data.sequential(8))
        ft.fit(learner, state, train=loader, epochs=1, jit=jit, chunk=1, callbacks=[keep])
    assert "raised by fit in epoch 1 of 1, phase 'train', batch 2" in caught.value.__notes__
    assert int(kept[0].step) == 2 and torch.isfinite(tree.global_norm(kept[0].params))


@pytest.mark.parametrize("what", ["the loss", "metric 'error'"])
def test_values_that_are_broadcast_over_the_batch_are_an_error(what):
    rows = data.ArrayDataset((torch.ones(8, 3), torch.zeros(8)))

    def squared(prediction, target):
        return (prediction - target) ** 2

    def flat(prediction, target):
        return squared(prediction.squeeze(-1), target)

    loss, error = (squared, flat) if what == "the loss" else (flat, squared)
    learner = ft.Learner(nn.dense(1), loss, optim.sgd(lr=0.1), {"error": metrics.mean(error)})
    state, train = ft.init(learner, ft.random.key(0), rows[:1]), data.loader(rows, data.sequential(4))
    message = rf"{what} must measure each example by itself: .*\(4, 4\), of 3 \(3, 3\).*\(4, 1\) and \(4,\); reshape"
    with pytest.raises(ShapeMismatch, match=message):
        eager(learner, state, train)
    learner = attrs.evolve(learner, loss=flat, metrics={"error": metrics.mean(flat)})
    assert len(eager(learner, state, train).history) == 2


def norm_of(params):
    """Return a state that cannot be had without the values of the parameters."""
    return torch.tensor(float(tree.global_norm(params)), dtype=torch.float64)


@pytest.mark.parametrize(
    "optimizer",
    [optim.adam(1e-3), optim.chain(optim.Transform(norm_of, lambda u, state, *_: (u, state)), optim.sgd(0.1))],
    ids=["adam", "looks at values"],
)
def test_the_state_of_another_optimizer_is_an_error(small, optimizer):
    learner, state, train, _ = small
    other = attrs.evolve(learner, optimizer=optimizer)
    with pytest.raises(TreeMismatch, match=r"state.opt_state must have .*learner.optimizer.init\(state.params\)"):
        eager(other, state, train)
    fresh = attrs.evolve(state, opt_state=optimizer.init(state.params))
    assert len(eager(other, fresh, train).history) == 2


def test_data_that_does_not_fit_is_found_before_anything_is_trained(small):
    learner, state, train, _ = small
    inputs, targets = train.dataset.arrays
    bad_labels = targets.clone()
    bad_labels[-1] = 7
    notes = []
    callbacks = [noting(["begin_fit"], notes)]
    with pytest.raises(LabelOutOfRange) as caught:
        eager(
            learner,
            state,
            data.loader(data.ArrayDataset((inputs, bad_labels)), data.sequential(4)),
            callbacks=callbacks,
        )
    assert "smallest and largest labels of train" in caught.value.__notes__[0]
    with pytest.raises(ShapeMismatch) as caught:
        valid = data.loader(data.ArrayDataset((inputs[:, :3], targets)), data.sequential(4))
        eager(learner, state, train, valid, callbacks=callbacks)
    assert "the first batch of valid" in caught.value.__notes__[0]
    assert notes == []
