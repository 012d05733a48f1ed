"""Ctrl-C at any moment, and an exception wherever user code stands: the run is carried by what is raised, whole."""

import gc
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time

import attrs
import pytest
import torch
from training_problems import Rows, problem

import functrain as ft
from functrain import checkpoint, data, losses, metrics, tree
from functrain.train.looping.interruption import Interruption, carry_run, interruptible, is_lost

MOMENTS = int(os.environ.get("FUNCTRAIN_INTERRUPTIONS", "10"))
"""How often each kind of fit is interrupted."""


class interrupted_after:
    """Send SIGINT to this process after some seconds, from another thread; leave only when it has been sent."""

    def __init__(self, seconds):
        main = threading.main_thread().ident
        self.timer = threading.Timer(seconds, signal.pthread_kill, (main, signal.SIGINT))

    def __enter__(self):
        self.timer.start()

    def __exit__(self, kind, error, at):
        self.timer.cancel()


@pytest.fixture(autouse=True)
def _no_callbacks_of_the_collector():
    """Leave out Hypothesis' own: what is raised in one, Ctrl-C included, Python swallows and warns of."""
    before, gc.callbacks[:] = gc.callbacks[:], []
    yield
    gc.callbacks[:] = before


def look(run):
    return None


def counting():
    def count(run):
        return ft.train.remember(run, "count", run.memory["count"] + 1)

    return ft.Callback("count", {"after_batch": count, "after_epoch": count}, memory=0, phases=("train", "valid"))


KINDS = {
    "eager": dict(jit=False, chunk=8),
    "compiled": dict(jit="aten", chunk=8),
    "one by one": dict(jit="aten", chunk=1),
    "shown": dict(jit="aten", callbacks=[counting()]),
    "recorded": dict(jit="aten", chunk=3, callbacks=[ft.callbacks.record()]),
}


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_that_is_interrupted_at_any_moment_goes_on_as_if_it_had_not_been(kind):
    learner, state, train, valid = problem(n=200)
    options = dict(train=train, valid=valid, **KINDS[kind])
    whole = ft.fit(learner, state, epochs=6, **options)
    began = time.perf_counter()
    ft.fit(learner, state, epochs=6, **options)
    seconds = time.perf_counter() - began
    draw, caught = random.Random(5), 0
    for _ in range(MOMENTS):
        run = None
        try:
            with interrupted_after(draw.random() * seconds):
                run = ft.fit(learner, state, epochs=6, **options)
        except KeyboardInterrupt as error:
            run = getattr(error, "run", run)  # without one, it came before the fit began or after it ended
            caught += run is not None
        if run is None:
            continue
        assert not is_lost(run)
        assert all(bool(torch.isfinite(leaf).all()) for leaf in tree.leaves(run.state.params))
        again = ft.fit(learner, run, **options)
        assert tree.equal(again.state, whole.state)
        assert again.history == whole.history
        assert tree.equal(dict(again.memory), dict(whole.memory))
    assert caught > 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("large")
def test_a_fit_that_saves_beside_several_validations_is_interrupted_at_any_moment(tmp_path):
    """Both what the error carries and the newest checkpoint go on as if nothing had been."""
    learner, state, train, valid = problem(n=200)
    several = {"clean": valid, "first": train, "list": list(data.batches(valid))}
    options = dict(train=train, valid=several, valid_steps={"first": 3})
    saving = [counting(), ft.callbacks.save_checkpoints(tmp_path / "whole", every=7)]
    whole = ft.fit(learner, state, epochs=4, callbacks=saving, **options)
    seconds, draw, caught = 0.0, random.Random(6), 0
    for number in range(MOMENTS + 1):
        folder = tmp_path / str(number)
        saving = [counting(), ft.callbacks.save_checkpoints(folder, every=7)]
        began, run = time.perf_counter(), None
        try:
            with interrupted_after(draw.random() * seconds if number else 100.0):
                run = ft.fit(learner, state, epochs=4, callbacks=saving, **options)
        except KeyboardInterrupt as error:
            run = getattr(error, "run", run)
            caught += run is not None
        seconds = seconds or time.perf_counter() - began
        assert not list(folder.glob(".*partial"))
        newest = checkpoint.latest(folder)
        for start in [one for one in (newest, run) if one is not None]:
            again = ft.fit(learner, start, epochs=4, callbacks=saving, **options)
            assert tree.equal(again.state, whole.state)
            assert list(again.history) == list(whole.history)
            assert again.memory["count"] == whole.memory["count"]
    assert caught > 0


def test_in_a_thread_nothing_is_taken_over():
    learner, state, train, _ = problem()
    seen, runs = [], []

    def fit():
        note = ft.Callback("note", {"after_epoch": lambda run: seen.append(signal.getsignal(signal.SIGINT))})
        runs.append(ft.fit(learner, state, train=train, epochs=2, callbacks=[note]))

    thread = threading.Thread(target=fit)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler] * 2
    assert tree.equal(runs[0].state, ft.fit(learner, state, train=train, epochs=2).state)


@pytest.mark.parametrize("jit", [False, "aten"])
def test_a_dataset_that_hangs_is_interrupted_at_once(jit):
    learner, state, train, _ = problem()

    class Hanging(Rows):
        def __getitem__(self, index):
            if index == 20:
                time.sleep(30)
            return self.rows[index]

    rows = data.loader(Hanging(train.dataset), data.sequential(8))
    ft.fit(learner, state, train=data.loader(Rows(train.dataset), data.sequential(8)), epochs=1, jit=jit)
    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt) as caught, interrupted_after(3.0):
        ft.fit(learner, state, train=rows, epochs=1, jit=jit, chunk=1)
    assert time.perf_counter() - began < 25
    assert int(caught.value.run.state.step) == 2


def test_sigint_is_held_back_while_memory_is_overwritten():
    calls = []
    held = Interruption(lambda *args: calls.append(args))
    held.hold()
    held.handle(2, None)
    assert calls == []
    held.release()
    assert calls == [(2, None)]
    held.handle(2, None)
    assert len(calls) == 2, "elsewhere it comes at once"
    held.hold()
    held.handle(2, None)
    held.handle(2, None)
    assert len(calls) == 3, "a second one comes at once"


def test_the_earlier_handler_is_put_back_and_called():
    calls = []
    earlier = signal.signal(signal.SIGINT, lambda *args: calls.append(args[0]))
    try:
        with interruptible() as outer, interruptible() as inner:
            inner.hold()
            signal.raise_signal(signal.SIGINT)
            assert calls == []
            inner.release()
            assert calls == [signal.SIGINT] and outer.pending is None
        with interruptible() as last:
            last.hold()
            signal.raise_signal(signal.SIGINT)
        assert calls == [signal.SIGINT] * 2
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, earlier)


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_handler_that_is_not_pythons_stays(handler):
    earlier = signal.signal(signal.SIGINT, handler)
    try:
        with interruptible():
            assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, earlier)


def test_a_state_that_is_lost_says_so():
    learner, state, train, _ = problem(n=16)
    state = tree.map(torch.clone, state)
    ft.jit(ft.train_step(learner), donate=0)(state, train.dataset[:8])
    error = KeyboardInterrupt()
    carry_run(error, ft.Run(state))
    assert "the state was being overwritten when this was raised, and is lost" in error.__notes__


# An exception in every place where user code stands


def fail(*_args):
    raise OSError("gone")


def failing_at(count):
    calls = [0]

    def f(*args):
        calls[0] += 1
        if calls[0] == count:
            raise OSError("gone")
        return args[-1]

    return f


class Failing(Rows):
    def __getitem__(self, index):
        return self.rows[index] if index != 30 else fail()


def of(train, **options):
    return {"train": attrs.evolve(train, **options)}


PLACES = {
    **{
        event: lambda train, event=event: {"callbacks": [ft.Callback("bad", {event: fail})]}
        for event in ft.train.EVENTS
    },
    "dataset": lambda train: of(train, dataset=Failing(train.dataset), sampler=data.sequential(8)),
    "collate": lambda train: of(train, collate=fail, dataset=Rows(train.dataset)),
    "transform": lambda train: of(train, transform=failing_at(6)),
    "resource": lambda train: {"callbacks": [ft.Callback("bad", {"after_epoch": look}, resource=fail)]},
    "iterable": lambda train: {"train": (fail() if k == 3 else train.dataset[:8] for k in range(7)), "steps": 7},
}


@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.parametrize("place", PLACES)
def test_whatever_raises_the_run_is_carried_whole(place, jit):
    learner, state, train, valid = problem()
    options = {"train": train, "valid": valid, "jit": jit, **PLACES[place](train)}
    options |= {} if "steps" in options else {"epochs": 2}
    with pytest.raises(OSError, match="gone") as caught:
        ft.fit(learner, state, **options)
    if place in ("collate",):
        assert "while trying the first batch of train, before training" in caught.value.__notes__
        return
    run = caught.value.run
    assert not is_lost(run)
    assert not tree.differences(run.state, run.state)
    if place in ft.train.EVENTS:
        notes = caught.value.__notes__
        assert notes.count(f"in callback 'bad', event {place!r}") == 1
        good = [ft.Callback("bad", {})]
        rest = ft.fit(learner, run, train=train, valid=valid, jit=jit, callbacks=good)
        whole = ft.fit(learner, state, train=train, valid=valid, jit=jit, epochs=2, callbacks=good)
        assert tree.equal(rest.state, whole.state) and rest.history == whole.history


@pytest.mark.parametrize("part", ["model", "loss", "metric", "optimizer"])
@pytest.mark.parametrize("jit", [False, "aten"])
def test_what_a_learner_is_made_of_may_raise(part, jit):
    learner, state, train, _ = problem(n=16)
    broken = {
        "model": dict(model=attrs.evolve(learner.model, apply=fail)),
        "loss": dict(loss=fail),
        "metric": dict(metrics={"bad": metrics.mean(fail)}),
        "optimizer": dict(optimizer=attrs.evolve(learner.optimizer, update=fail, fused=None)),
    }
    before = tree.map(torch.clone, state)
    with pytest.raises(OSError, match="gone"):
        ft.fit(attrs.evolve(learner, **broken[part]), state, train=train, epochs=1, jit=jit)
    assert tree.equal(state, before)
    assert learner.loss is losses.cross_entropy


def test_in_a_script(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import torch, functrain as ft
        from functrain import data, losses, nn, optim
        rows = data.ArrayDataset((torch.randn(512, 4), torch.randint(3, (512,))))
        learner = ft.Learner(nn.dense(3), losses.cross_entropy, optim.sgd(0.1))
        state = ft.init(learner, ft.random.key(0), rows[:1])
        begun = ft.Callback("begun", {"begin_epoch": lambda run: print("epoch", flush=True)})
        try:
            ft.fit(learner, state, train=data.loader(rows, data.shuffled(8)), epochs=100000, callbacks=[begun])
        except KeyboardInterrupt as error:
            state = error.run.state
            print("interrupted at", int(state.step), bool(torch.isfinite(state.params["weight"]).all()))
        """)
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as process:
        for _ in range(3):
            process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=100)
    assert "interrupted at" in out and out.strip().endswith("True")
    assert process.returncode == 0
