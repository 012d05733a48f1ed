"""The batch at which a run stopped, raised or stands, in training and in validations."""

import attrs
import pytest
import torch
from training_problems import problem, raiser

import functrain as ft
from functrain import data
from functrain.errors import InvalidArgument

BOTH = pytest.mark.parametrize("jit", [False, "aten"])
EVENTS = ("begin_batch", "begin_step", "after_pred", "after_loss", "after_step", "after_batch", "after_chunk")
"""The events of a batch that both phases have."""


@pytest.fixture(scope="module")
def setup():
    learner, state, train, valid = problem()
    named = {"clean": valid, "noisy": data.loader(valid.dataset, data.shuffled(8))}
    return learner, state, train, named


def stopping(event, phase, number, epoch=1):
    """Return a callback that stops the fit at one batch; where steps count no batches, at the batch of that content."""
    if event in ft.train.STEP_EVENTS:

        def handler(step):
            return ft.Stop(step, scope="fit", when=(step.batch.input == number).all(1).any())
    else:

        def handler(run):
            past = event in ("after_batch", "after_chunk")
            return ft.Stop(run, scope="fit", when=(run.epoch, run.phase, run.step - past) == (epoch, phase, number))

    return ft.Callback("stop", {event: handler}, phases=("train",) if phase == "train" else ("valid",))


@BOTH
@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("phase", ["train", "clean", "noisy"])
@pytest.mark.parametrize("event", EVENTS)
def test_a_stop_says_at_which_batch_it_was(setup, event, phase, chunk, jit):
    learner, state, train, named = setup
    loader = train if phase == "train" else named[phase]
    number = min(3, len(loader) - 1) if event == "after_chunk" and chunk == 4 else 2  # the last one of a chunk
    if event in ft.train.STEP_EVENTS:  # which find the batch by a row of a content of its own
        marked = {"train": train, **named}
        inputs = train.dataset.arrays[0].clone()
        inputs[17] = 9.0
        marked[phase] = attrs.evolve(loader, dataset=data.ArrayDataset((inputs, train.dataset.arrays[1])))
        train, named = marked.pop("train"), marked
        callback = stopping(event, phase, 9.0)
    else:
        callback = stopping(event, phase, number)
    run = ft.fit(learner, state, train=train, valid=named, epochs=3, jit=jit, chunk=chunk, callbacks=[callback])
    where = run.stopped
    assert where.event == event and where.phase == phase
    got = ft.batch_at(run, train, named)
    expected = list(data.batches(train if phase == "train" else named[phase], run.key, where.epoch))[where.batch]
    assert torch.equal(got.input, expected.input)
    if event in ft.train.STEP_EVENTS:
        assert bool((got.input == 9.0).all(1).any())
    else:
        assert (where.epoch, where.batch) == (1, number)


@BOTH
@pytest.mark.parametrize("phase", ["train", "noisy"])
@pytest.mark.parametrize("event", ["begin_batch", "after_batch"])
def test_what_raises_at_a_batch_is_at_that_batch(setup, event, phase, jit):
    learner, state, train, named = setup
    seen = []

    def handler(run):
        if (run.epoch, run.phase) == (1, phase) and len(seen) == 0 and run.step - (event == "after_batch") == 3:
            seen.append(run.batch)
            raiser(OSError, "gone")(run)

    bad = ft.Callback("bad", {event: handler}, phases=("train", "valid"))
    with pytest.raises(OSError, match="gone") as caught:
        ft.fit(learner, state, train=train, valid=named, epochs=3, jit=jit, callbacks=[bad])
    assert torch.equal(ft.batch_at(caught.value.run, train, named).input, seen[0].input)


def test_a_run_between_batches_has_none(setup):
    learner, state, train, named = setup
    finished = ft.fit(learner, state, train=train, epochs=1)
    with pytest.raises(InvalidArgument, match="the run stands at no batch, but in epoch 1 before 'after_fit'"):
        ft.batch_at(finished, train)
    stop = ft.Callback("stop", {"begin_validate": lambda run: ft.Stop(run, scope="fit")})
    between = ft.fit(learner, state, train=train, valid=named, epochs=1, callbacks=[stop])
    with pytest.raises(InvalidArgument, match="no batch, but in epoch 1 before 'begin_validate', phase 'clean'"):
        ft.batch_at(between, train, named)
    inside = ft.fit(
        learner, state, train=train, valid=named, epochs=2, callbacks=[stopping("after_batch", "noisy", 2, epoch=0)]
    )
    with pytest.raises(InvalidArgument, match="the run stands in the validation 'noisy': pass valid= as it was passed"):
        ft.batch_at(inside, train)
    with pytest.raises(InvalidArgument, match=r"noisy must be a Loader or a list, whose batches can be .* got zip"):
        ft.batch_at(inside, train, {"noisy": zip([1], [2], strict=True)})
