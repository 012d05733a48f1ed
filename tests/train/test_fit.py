"""A fit is a fold of the step, the same in any chunks, compiled or not."""

import pytest
import torch
from training_problems import eager, problem, stopping_at

import functrain as ft
from functrain import data, nn, optim, tree


@pytest.fixture(scope="module")
def small():
    return problem()


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
    assert history["lr"][0] == pytest.approx(0.05)


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


@pytest.mark.parametrize("chunk", [1, 8])
def test_nothing_is_padded_that_was_not_asked_for(chunk):
    model = nn.serial(lambda x: x - x.mean(0), nn.dense(3))
    learner, state, train, valid = problem(model=model, optimizer=optim.sgd(lr=0.1))
    got = ft.fit(learner, state, train=train, valid=valid, epochs=1, chunk=chunk)
    by_hand = ft.plan(state, len(train), 1)
    by_hand, _ = ft.fold(ft.train_step(learner), by_hand, data.batches(train, ft.train.data_key(state), 0))
    assert not tree.differences(got.state.params, by_hand.params, rtol=1e-4, atol=1e-6)
    assert ft.evaluate(learner, state, valid, jit="aten")["loss"] == pytest.approx(
        ft.evaluate(learner, state, valid, jit=False)["loss"], rel=1e-6
    )
