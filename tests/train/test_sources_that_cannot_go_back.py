"""What a source that is no Loader cannot promise to a run that goes on is said, for every phase."""

import pytest
import torch
from training_problems import problem

import functrain as ft
from functrain import data, losses, metrics, nn, optim

BOTH = pytest.mark.parametrize("jit", [False, "aten"])


class Once:
    """A source with a length that is gone through once, then once more."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


KINDS = {
    "list": list,
    "iterable": Once,
    "DataLoader": lambda batches: torch.utils.data.DataLoader(batches, batch_size=None),
}


def stop_at(event, phase, epoch, batch=0):
    """Return a callback that ends the fit at an event of a phase, once."""

    def stop(run):
        now = (run.phase, run.epoch) == (phase, epoch) and run.step == batch and run.memory["stop"] == 0
        return ft.Stop(ft.train.remember(run, "stop", 1), scope="fit") if now else None

    return ft.Callback("stop", {event: stop}, memory=0, phases=("train", "valid"))


def gone_on(callback, sources, jit, epochs=2):
    learner, state, _, _ = problem()
    options = dict(train=sources["train"], callbacks=[callback], jit=jit, chunk=1)
    options["valid"] = {name: one for name, one in sources.items() if name != "train"}
    stopped = ft.fit(learner, state, epochs=epochs, **options)
    assert stopped.stopped is not None and not stopped.notes
    return ft.fit(learner, stopped, **options).notes


def sources_of(kind, names):
    _, _, train, valid = problem()
    sources = {"train": train, "clean": valid, "noisy": valid}
    return {
        name: KINDS[kind](list(data.batches(one, ft.random.key(1)))) if name in names else one
        for name, one in sources.items()
    }


@BOTH
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("event", ["begin_batch", "after_batch", "after_chunk"])
@pytest.mark.parametrize("phase", ["train", "clean", "noisy"])
def test_a_stop_in_the_middle_of_any_phase_is_noted(jit, kind, event, phase):
    for batch in (1, 2):
        notes = gone_on(stop_at(event, phase, 0, batch), sources_of(kind, [phase]), jit)
        if kind == "list":
            assert notes == (), "it goes on where it left off"
            continue
        assert notes[0] == (
            f"{phase} is no Loader: the run went on with the batches that it gave next, not where it left off"
        )
        assert len(notes) == 1
        others = {"train", "clean", "noisy"} - {phase}
        assert gone_on(stop_at(event, phase, 0, batch), sources_of("list", others), jit) == ()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("at", "taken"),
    [
        (("begin_epoch", "train", 0), ()),
        (("begin_validate", "clean", 0), ("train",)),
        (("begin_validate", "noisy", 0), ("train", "clean")),
        (("after_validate", "noisy", 0), ("train", "clean", "noisy")),
        (("after_epoch", "train", 0), ("train", "clean", "noisy")),
        (("begin_epoch", "train", 1), ("train", "clean", "noisy")),
        (("begin_validate", "clean", 1), ("clean", "noisy")),
        (("after_epoch", "train", 1), ()),
    ],
)
def test_between_the_phases_what_was_taken_before_and_is_taken_again_is_noted(kind, at, taken):
    notes = gone_on(stop_at(*at), sources_of(kind, ["train", "clean", "noisy"]), False)
    message = "is no Loader: nobody but it knows whether it gave the batches of a run without the stop"
    assert list(notes) == [f"{name} {message}" for name in taken if kind != "list"], "a list gives the same again"


@BOTH
def test_a_loop_says_it_too(jit):
    def step(total, batch):
        return total + batch.sum(), {"sum": batch.sum()}

    def evaluate(total, batch):
        return {"sum": batch.sum()}

    batches = [torch.full((2,), float(k)) for k in range(4)]
    options = dict(train=Once(batches), valid=Once(batches), evaluate=evaluate, key=ft.random.key(0), jit=jit, chunk=1)
    for phase in ("train", "valid"):
        options["callbacks"] = [stop_at("after_batch", phase, 0, 2)]
        stopped = ft.loop(step, torch.tensor(0.0), epochs=1, **options)
        run = ft.loop(step, stopped, **options)
        assert [note.split()[0] for note in run.notes] == [phase]


def test_a_note_is_made_once():
    learner, state, _, _ = problem()
    sources = sources_of("iterable", ["clean"])
    stop = ft.Callback(
        "stop", {"after_batch": lambda run: ft.Stop(run, scope="fit") if run.step < 3 else None}, phases=("valid",)
    )
    run, options = state, dict(epochs=1)
    while not isinstance(run, ft.Run) or not run.finished:
        run = ft.fit(
            learner,
            run,
            train=sources["train"],
            valid={"clean": sources["clean"]},
            callbacks=[stop],
            jit=False,
            **options,
        )
        options = {}
    assert len(run.notes) == 1


BATCHES = [(torch.full((3, 4), float(k)) + torch.eye(4)[:3], torch.tensor([0, 1, k % 2])) for k in range(9)]
LEARNER = ft.Learner(nn.dense(2), losses.cross_entropy, optim.sgd(0.1, momentum=0.9), {"accuracy": metrics.accuracy})


class Hiccup(Exception):
    pass


def once_at(event, phase, number, raising):
    """Return a callback that stops the fit, or raises, at the so-manieth time of an event, once."""
    calls = []

    def stop(run):
        if run.phase != phase:
            return None
        calls.append(run.step)
        if len(calls) != number:
            return None
        if raising:
            raise Hiccup
        return ft.Stop(run, scope="fit")

    return ft.Callback("once", {event: stop}, phases=("train", "valid"), keeps_state=number % 2 == 0)


def carried_out(callbacks, jit, chunk, valid_steps, refilled):
    def give():
        buffers = tuple(part.clone() for part in BATCHES[0])
        for batch in BATCHES:
            if refilled:
                for buffer, part in zip(buffers, batch, strict=True):
                    buffer.copy_(part)
            yield buffers if refilled else batch

    state = ft.init(LEARNER, ft.random.key(0), BATCHES[0])
    options = dict(train=give(), valid=give(), valid_steps=valid_steps, callbacks=callbacks, jit=jit, chunk=chunk)
    start, pauses = state, 0
    while True:
        try:
            run = ft.fit(LEARNER, start, **options, **({} if isinstance(start, ft.train.Run) else {"steps": 9}))
        except Hiccup as error:
            start, pauses = error.run, pauses + 1
            continue
        if run.stopped is None:
            return run, pauses
        start, pauses = run, pauses + 1


@pytest.mark.parametrize(("jit", "chunk"), [(False, 1), (False, 4), ("aten", 4)])
@pytest.mark.parametrize(("valid_steps", "refilled"), [(9, False), ("all", True)])
@pytest.mark.parametrize("raising", [False, True])
@pytest.mark.parametrize("event", ["begin_batch", "after_batch", "after_chunk"])
@pytest.mark.parametrize("phase", ["train", "valid"])
def test_a_generator_that_is_gone_on_with_loses_no_batch(phase, event, raising, refilled, valid_steps, jit, chunk):
    for number in (1, 2) if event == "after_chunk" else (1, 2, 5, 9):
        look = [once_at(event, phase, 10**6, raising)]
        whole, _ = carried_out(look, jit, chunk, valid_steps, refilled)
        run, pauses = carried_out([once_at(event, phase, number, raising)], jit, chunk, valid_steps, refilled)
        assert pauses == 1
        assert list(run.history) == list(whole.history), number
        assert ft.tree.equal(run.state, whole.state), number
