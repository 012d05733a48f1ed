"""A run is a value from which a fit goes on, to the bit."""

import pytest
from training_problems import eager, noting, problem, stopping_at

import functrain as ft
from functrain import data, tree
from functrain.errors import (
    RunMismatch,
)


@pytest.fixture(scope="module")
def small():
    return problem()


@pytest.mark.parametrize("jit", [False, "aten"])
def test_a_run_stopped_and_resumed_at_every_step_is_the_uninterrupted_run_bitwise(small, jit):
    learner, state, train, valid = small
    options = dict(train=train, valid=valid, jit=jit, chunk=3)
    whole = ft.fit(learner, state, **options, epochs=2, callbacks=[stopping_at(-1), ft.callbacks.record()])
    for step in range(2 * len(train)):
        callbacks = [stopping_at(step), ft.callbacks.record()]
        stopped = ft.fit(learner, state, **options, epochs=2, callbacks=callbacks)
        assert int(stopped.state.step) == step
        assert (stopped.stopped.epoch, stopped.stopped.batch) == divmod(step, len(train))
        resumed = ft.fit(learner, stopped, **options, callbacks=callbacks)
        assert tree.equal(resumed.state, whole.state), step
        assert resumed.history == whole.history
        assert tree.equal(resumed.memory["record"], whole.memory["record"])
        assert resumed.finished and resumed.stopped is None


def test_a_state_begins_a_new_run_and_no_key_comes_twice(small):
    learner, state, train, valid = small
    first = eager(learner, state, train, valid, epochs=1)
    second = eager(learner, first.state, train, valid, epochs=3)
    assert int(second.state.step) == 4 * len(train)
    assert int(second.state.updates) == 3 * len(train)
    assert second.history["epoch"] == [1, 2, 3]
    assert second.history["lr"][0] == pytest.approx(0.05)
    stopped = eager(learner, state, train, valid, callbacks=[stopping_at(3)])
    anew = eager(learner, stopped.state, train, valid, epochs=2)
    assert int(anew.state.step) == 3 + 2 * len(train)
    assert anew.history["epoch"] == [1, 2]


def test_a_finished_run_comes_back_as_it_is(small):
    learner, state, train, valid = small
    run = eager(learner, state, train, valid)
    assert eager(learner, run, train, valid, epochs=2) is run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(epochs=5), r"begun with epochs 2, and now epochs 5"),
        (dict(batch_size=10), r"begun with batches an epoch \{'train': 7.*now batches an epoch \{'train': 5"),
        (dict(callbacks=["note"]), r"begun with callbacks \['at'\], and now callbacks \['at', 'note'\]"),
    ],
)
def test_going_on_with_something_else_is_an_error_that_names_both(small, change, message):
    learner, state, train, valid = small
    stopped = eager(learner, state, train, valid, callbacks=[stopping_at(3)])
    callbacks = [stopping_at(3), *(noting([], [], name) for name in change.pop("callbacks", []))]
    train = data.loader(train.dataset, data.shuffled(change.pop("batch_size", 8)))
    with pytest.raises(RunMismatch, match=message):
        eager(learner, stopped, train, valid, callbacks=callbacks, **{"epochs": None, **change})
