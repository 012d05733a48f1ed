"""An end that raises loses nothing: `after_fit`, Ctrl-C inside it, and the exits of resources."""

import contextlib

import attrs
import pytest
import torch
from training_problems import eager, noting, problem

import functrain as ft
from functrain import checkpoint, tree
from functrain.errors import RunMismatch

BOTH = pytest.mark.parametrize("jit", [False, "aten"])


def same_results(run, whole):
    assert tree.equal(run.state, whole.state) and run.history == whole.history
    assert tree.equal(run.memory, whole.memory)
    assert (run.stopped, run.finished) == (whole.stopped, whole.finished)


def failing(error, times=1):
    """Return a handler of after_fit that raises the first times, and then counts."""
    calls = []

    def handler(run):
        calls.append(run)
        if len(calls) <= times:
            raise error
        return ft.train.remember(run, "bad", run.memory["bad"] + 1)

    return handler


def ending(name, notes):
    def handler(run):
        notes.append(name)
        return ft.train.remember(run, name, run.memory[name] + 1)

    return ft.Callback(name, {"after_fit": handler}, memory=0, order=200)


def callbacks_of(handler, notes, **early):
    stop = ft.callbacks.early_stopping("train/loss", restore_best=True, **early)
    bad = ft.Callback("bad", {"after_fit": handler}, memory=0, order=100)
    return [stop, ft.callbacks.record(), bad, ending("last", notes)]


def good(run):
    return ft.train.remember(run, "bad", run.memory["bad"] + 1)


@BOTH
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize("early", [dict(patience=9), dict(patience=1, mode="max")], ids=["finished", "stopped"])
def test_going_on_from_an_after_fit_that_raised_asks_every_handler_again(jit, error, early):
    learner, state, train, valid = problem()
    options = dict(train=train, valid=valid, jit=jit)
    whole = ft.fit(learner, state, epochs=3, callbacks=callbacks_of(good, [], **early), **options)
    assert (whole.stopped is None) == (early["patience"] == 9)
    handler, notes = failing(error, times=2), []
    callbacks = callbacks_of(handler, notes, **early)
    with pytest.raises(type(error)) as caught:
        ft.fit(learner, state, epochs=3, callbacks=callbacks, **options)
    assert notes == ["last"], "the callbacks after it are told that this is the end"
    assert not caught.value.run.finished and caught.value.run.memory["last"] == 0
    with pytest.raises(type(error)) as again:
        ft.fit(learner, caught.value.run, callbacks=callbacks, **options)
    run = ft.fit(learner, again.value.run, callbacks=callbacks, **options)
    same_results(run, whole)
    assert isinstance(run.memory["record"], dict) and run.memory["bad"] == run.memory["last"] == 1
    options["callbacks"] = callbacks
    same_results(ft.fit(learner, run, **options), ft.fit(learner, whole, **options))


@BOTH
def test_a_loop_whose_after_fit_raised_goes_on_and_a_finished_one_comes_back(jit):
    def step(total, batch):
        return total + batch.sum(), {"sum": batch.sum()}

    options = dict(key=ft.random.key(0), train=[torch.ones(2)] * 3, jit=jit)
    callbacks = [ft.Callback("bad", {"after_fit": failing(OSError("gone"))}, memory=0)]
    with pytest.raises(OSError) as caught:
        ft.loop(step, torch.tensor(0.0), epochs=2, callbacks=callbacks, **options)
    run = ft.loop(step, caught.value.run, callbacks=callbacks, **options)
    assert float(run.state) == 12 and run.memory["bad"] == 1 and run.finished
    assert ft.loop(step, run, callbacks=callbacks, **options) is run
    with pytest.raises(RunMismatch, match="begun with epochs 2, and now epochs 3"):
        ft.loop(step, run, epochs=3, callbacks=callbacks, **options)


@pytest.mark.parametrize("key", [None, ft.random.key(0)])
def test_a_saved_loop_goes_on_with_its_own_key_and_asks_after_fit_again(tmp_path, key):
    def step(total, batch):
        return total + batch.sum(), {"sum": batch.sum()}

    options = dict(train=[torch.ones(2)] * 3, jit=False)
    callbacks = [ft.Callback("bad", {"after_fit": failing(OSError("gone"))}, memory=0)]
    with pytest.raises(OSError) as caught:
        ft.loop(step, torch.tensor(0.0), epochs=2, key=ft.random.key(0), callbacks=callbacks, **options)
    checkpoint.save(tmp_path / "run", caught.value.run)
    run = ft.loop(step, checkpoint.restore(tmp_path / "run"), key=key, callbacks=callbacks, **options)
    assert float(run.state) == 12 and run.memory["bad"] == 1 and run.finished
    with pytest.raises(RunMismatch, match="begun with the key"):
        saved = checkpoint.restore(tmp_path / "run")
        ft.loop(step, saved, key=ft.random.key(1), callbacks=callbacks, **options)


def test_after_fit_sees_the_run_to_go_on_from():
    learner, state, train, _ = problem(n=16)
    seen = []
    look = ft.Callback("look", {"after_fit": lambda run: seen.append((run.finished, run.point.cursor.event))})
    stop = ft.Callback("stop", {"after_batch": lambda run: ft.Stop(run, scope="fit")})
    eager(learner, state, train, callbacks=[look])
    eager(learner, state, train, callbacks=[look, stop])
    assert seen == [(True, "after_fit"), (False, "after_batch")]


# Resources


def resource(at_exit=None, swallows=False):
    @contextlib.contextmanager
    def opened(run):
        try:
            yield "live"
        except OSError:
            if not swallows:
                raise
        if at_exit is not None:
            raise at_exit

    return opened


def with_resource(opened, handlers=()):
    handlers = {event: (lambda run, live, f=f: f(run)) for event, f in dict(handlers).items()}
    return ft.Callback("live", handlers, resource=opened)


def fail(run):
    if run.epoch == 1:
        raise OSError("disk full")


@BOTH
@pytest.mark.parametrize("count", [1, 2])
def test_the_exit_of_a_resource_that_raises_carries_the_result(jit, count):
    learner, state, train, _ = problem(n=16)
    exits = [with_resource(resource(ValueError("cannot be closed")))] + [
        attrs.evolve(with_resource(resource()), name="other")
    ] * (count - 1)
    callbacks = [*exits, ft.callbacks.record()]
    with pytest.raises(ValueError, match="cannot be closed") as caught:
        ft.fit(learner, state, train=train, epochs=2, callbacks=callbacks, jit=jit)
    run = caught.value.run
    assert run.finished and isinstance(run.memory["record"], dict)
    assert ft.fit(learner, run, train=train, callbacks=callbacks, jit=jit) is run
    whole = ft.fit(learner, state, train=train, epochs=2, callbacks=[ft.callbacks.record()], jit=jit)
    assert tree.equal(run.state, whole.state) and run.history == whole.history


@BOTH
def test_an_exit_that_raises_after_a_failure_carries_the_run_of_the_failure(jit):
    learner, state, train, _ = problem(n=16)
    bad = with_resource(resource(ValueError("cannot be closed"), swallows=True), {"after_epoch": fail})
    with pytest.raises(ValueError, match="cannot be closed") as caught:
        ft.fit(learner, state, train=train, epochs=3, callbacks=[bad], jit=jit)
    assert (caught.value.run.epoch, caught.value.run.cursor.event) == (1, "after_epoch")
    rest = ft.fit(learner, caught.value.run, train=train, callbacks=[with_resource(resource())], jit=jit)
    whole = ft.fit(learner, state, train=train, epochs=3, jit=jit)
    assert tree.equal(rest.state, whole.state) and rest.history == whole.history


@BOTH
@pytest.mark.parametrize("opened", [resource(swallows=True), lambda run: contextlib.suppress(OSError)])
def test_a_resource_swallows_no_error(jit, opened):
    learner, state, train, _ = problem(n=16)
    notes = []
    callbacks = [with_resource(opened, {"after_epoch": fail}), noting(["after_fit"], notes)]
    with pytest.raises(OSError, match="disk full") as caught:
        ft.fit(learner, state, train=train, epochs=3, callbacks=callbacks, jit=jit)
    assert any("the exit of a callback's resource returned True" in note for note in caught.value.__notes__)
    assert (caught.value.run.epoch, len(notes)) == (1, 1)


def test_a_resource_that_cannot_be_opened_lets_those_opened_before_it_end():
    learner, state, train, _ = problem(n=16)
    notes = []

    def unopened(run):
        raise OSError("no such file")

    first = with_resource(resource(), {"after_fit": lambda run: notes.append("told")})
    second = attrs.evolve(with_resource(unopened, {"after_fit": lambda run: notes.append("wrong")}), name="second")
    with pytest.raises(OSError, match="no such file") as caught:
        eager(learner, state, train, callbacks=[first, second])
    assert notes == ["told"] and caught.value.run.cursor.event == "begin_fit"


# Which run it is


@BOTH
def test_an_error_that_is_raised_in_two_fits_carries_the_run_of_each(jit):
    learner, state, train, _ = problem(n=16)
    same = OSError("gone")

    def fail(run):
        raise same

    callbacks = [ft.Callback("fail", {"after_epoch": fail})]
    for epochs in (1, 2):
        with pytest.raises(OSError) as caught:
            ft.fit(learner, state, train=train, epochs=epochs, callbacks=callbacks, jit=jit)
        assert caught.value.run.epochs == epochs


@BOTH
def test_an_error_of_a_fit_inside_a_handler_carries_the_run_outside(jit):
    learner, state, train, _ = problem(n=16)

    def inner(run):
        if run.epoch == 1:
            raiser = ft.Callback("raiser", {"begin_epoch": fail})
            ft.fit(learner, state, train=train, epochs=5, callbacks=[raiser], jit=jit)

    with pytest.raises(OSError, match="disk full") as caught:
        options = dict(callbacks=[ft.Callback("inner", {"after_epoch": inner})], jit=jit)
        ft.fit(learner, state, train=train, epochs=3, **options)
    run = caught.value.run
    assert (run.epochs, run.cursor.event, int(run.state.step)) == (3, "after_epoch", 4)


@BOTH
def test_going_on_while_an_error_is_handled_carries_the_new_run(jit):
    learner, state, train, _ = problem(n=16)

    def unopened(run):
        raise ValueError("no such file")

    fails = [ft.Callback("fail", {"after_epoch": fail})]
    try:
        ft.fit(learner, state, train=train, epochs=3, callbacks=fails, jit=jit)
    except OSError:
        with pytest.raises(ValueError) as caught:
            options = dict(callbacks=[ft.Callback("live", {}, resource=unopened)], jit=jit)
            ft.fit(learner, state, train=train, epochs=7, **options)
    assert caught.value.run.epochs == 7
