"""Whether a source without a length ends, nobody can tell: it is asked how many batches to take, and never hangs."""

import itertools

import attrs
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset
from training_problems import problem, stopping_at

import functrain as ft
from functrain import data, losses, nn, tree
from functrain.errors import InvalidArgument, RunMismatch, SourceEnded

BOTH = pytest.mark.parametrize("jit", [False, "aten"])


class Endless(IterableDataset):
    """The batches of a list, again and again."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return itertools.cycle(self.batches)


ENDLESS = {
    "generator": lambda batches: (batch for batch in itertools.cycle(batches)),
    "DataLoader": lambda batches: DataLoader(Endless(batches), batch_size=None),
    "DataLoader with workers": lambda batches: DataLoader(Endless(batches), batch_size=None, num_workers=1),
    "repeat": lambda batches: itertools.repeat(batches[0]),
    "object": Endless,
}
KINDS = pytest.mark.parametrize("kind", [kind for kind in ENDLESS if "workers" not in kind])


def batches():
    learner, state, train, _ = problem(model=nn.dense(3))
    inputs, targets = train.dataset.arrays
    return learner, state, train, [(inputs[k : k + 8], targets[k : k + 8]) for k in range(0, 48, 8)]


def step(total, batch):
    return total + batch[0].sum(), {"sum": batch[0].sum()}


def measured(total, batch):
    return {"sum": batch[0].sum()}


@KINDS
def test_without_a_number_it_is_an_error_that_says_what_to_pass(kind):
    learner, state, train, some = batches()
    make = ENDLESS[kind]
    said = "{} has no length, so that nobody knows whether it ends; pass {}=, how many batches .* or {}='all'"
    with pytest.raises(InvalidArgument, match=said.format("valid", *["valid_steps"] * 2)):
        ft.fit(learner, state, train=train, epochs=1, valid=make(some))
    with pytest.raises(InvalidArgument, match=said.format("noisy", *["valid_steps"] * 2)):
        ft.fit(learner, state, train=train, epochs=1, valid={"clean": train, "noisy": make(some)})
    options = dict(key=ft.random.key(0), train=some, epochs=1, evaluate=measured)
    with pytest.raises(InvalidArgument, match=said.format("valid", *["valid_steps"] * 2)):
        ft.loop(step, torch.tensor(0.0), valid=make(some), **options)
    with pytest.raises(InvalidArgument, match=said.format("loader", *["steps"] * 2)):
        ft.evaluate(learner, state, make(some))
    with pytest.raises(InvalidArgument, match=said.format("inputs", *["steps"] * 2)):
        ft.predict(learner, state, make(some))


@BOTH
@pytest.mark.parametrize("kind", ENDLESS)
def test_a_number_takes_the_first_batches(kind, jit):
    learner, state, train, some = batches()
    make, first = ENDLESS[kind], [some[0]] * 4 if kind == "repeat" else some[:4]
    expected = ft.evaluate(learner, state, first, jit=jit)
    assert ft.evaluate(learner, state, make(some), jit=jit, steps=4) == expected
    inputs = torch.cat([x for x, _ in first])
    torch.testing.assert_close(
        ft.predict(learner, state, make(some), jit=jit, steps=4), ft.predict(learner, state, inputs, jit=jit)
    )
    run = ft.fit(learner, state, train=train, epochs=1, valid=make(some), valid_steps=4, jit=jit)
    whole = ft.fit(learner, state, train=train, epochs=1, valid=first, jit=jit)
    assert list(run.history) == list(whole.history) and tree.equal(run.state, whole.state)
    options = dict(key=ft.random.key(0), train=some, epochs=2, evaluate=measured, jit=jit)
    looped = ft.loop(step, torch.tensor(0.0), valid=make(some), valid_steps=4, **options)
    assert looped.history["valid/sum"][0] == pytest.approx(float(torch.stack([x.sum() for x, _ in first]).mean()))


def test_all_goes_to_the_end_and_each_validation_may_have_a_number_of_its_own():
    learner, state, train, some = batches()
    whole = ft.evaluate(learner, state, some)
    assert ft.evaluate(learner, state, iter(some), steps="all") == whole
    valid = {"clean": some, "noisy": Endless(some), "late": iter(some)}
    steps = {"noisy": 2, "late": "all"}
    run = ft.fit(learner, state, train=train, epochs=1, valid=valid, valid_steps=steps, chunk=3)
    assert run.plan.lengths == {"train": len(train), "clean": 6, "noisy": 2, "late": None}
    first = ft.evaluate(learner, run.state, some[:2])["loss"]
    every = ft.evaluate(learner, run.state, some)["loss"]
    row = run.history[-1]
    assert (row["clean/loss"], row["noisy/loss"], row["late/loss"]) == (every, first, every)


@BOTH
@pytest.mark.parametrize("remainder", ["keep", "pad", "drop"])
def test_the_first_batches_of_a_loader(remainder, jit):
    learner, state, train, _ = batches()
    inputs, targets = train.dataset.arrays
    loader = data.loader(data.ArrayDataset((inputs[:20], targets[:20])), data.sequential(8, remainder))
    for steps, rows in ((1, 8), (2, 16), (len(loader), 16 if remainder == "drop" else 20)):
        got = ft.predict(learner, state, loader, jit=jit, steps=steps)
        torch.testing.assert_close(got, ft.predict(learner, state, inputs[:rows], jit=jit))
        alone = ft.evaluate(learner, state, [(inputs[:rows], targets[:rows])], jit=jit)
        assert ft.evaluate(learner, state, loader, jit=jit, steps=steps) == pytest.approx(alone, rel=1e-5)
        run = ft.fit(learner, state, train=loader, epochs=1, valid=loader, valid_steps=steps, jit=jit, chunk=3)
        alone = ft.evaluate(learner, run.state, [(inputs[:rows], targets[:rows])], jit=jit)
        assert run.history["valid/loss"] == pytest.approx([alone["loss"]], rel=1e-5)


def test_padding_that_is_not_taken_is_not_refused():
    learner, state, train, _ = batches()
    learner = attrs.evolve(learner, model=nn.serial(nn.dense(3), lambda x: x - x.mean(0)), loss=losses.cross_entropy)
    state = ft.init(learner, ft.random.key(0), train.dataset[:1])
    padded = data.loader(train.dataset, data.sequential(8, "pad"))
    assert len(ft.predict(learner, state, padded, steps=6)) == 48
    assert ft.evaluate(learner, state, padded, steps=6)["loss"] > 0


def test_a_run_goes_on_with_the_numbers_that_it_was_begun_with():
    learner, state, train, some = batches()
    options = dict(train=train, valid=some, jit=False)
    whole = ft.fit(learner, state, valid_steps=3, epochs=1, callbacks=[stopping_at(10**6)], **options)
    stopped = ft.fit(learner, state, valid_steps=3, epochs=1, callbacks=[stopping_at(2)], **options)
    with pytest.raises(RunMismatch, match=r"batches an epoch .*'valid': 3.*, and now .*'valid': 6"):
        ft.fit(learner, stopped, callbacks=[stopping_at(2)], **options)
    on = ft.fit(learner, stopped, valid_steps=3, callbacks=[stopping_at(2)], **options)
    assert tree.equal(on.state, whole.state) and list(on.history) == list(whole.history)


def test_numbers_that_are_none_or_too_large_are_refused():
    learner, state, train, some = batches()
    options = dict(train=train, epochs=1)
    for wrong in (0, -1, 2.5, True, [3]):
        with pytest.raises(InvalidArgument, match="valid_steps must be a whole number of at least 1"):
            ft.fit(learner, state, valid=some, valid_steps=wrong, **options)
        with pytest.raises(InvalidArgument, match="steps must be a whole number of at least 1"):
            ft.evaluate(learner, state, some, steps=wrong)
    with pytest.raises(InvalidArgument, match="valid_steps must be a number of batches, or 'all', got 'some'"):
        ft.fit(learner, state, valid=some, valid_steps="some", **options)
    with pytest.raises(InvalidArgument, match="steps must be at most 6, the batches that loader has, got 7"):
        ft.evaluate(learner, state, some, steps=7)
    with pytest.raises(InvalidArgument, match=r"valid_steps has \['other'\], and the validations are \['valid'\]"):
        ft.fit(learner, state, valid=some, valid_steps={"other": 1}, **options)
    with pytest.raises(InvalidArgument, match="valid_steps is 3, and there is no valid"):
        ft.fit(learner, state, valid_steps=3, **options)
    with pytest.raises(InvalidArgument, match="steps counts batches, and inputs are the input of the model; got 3"):
        ft.predict(learner, state, some[0][0], steps=3)
    with pytest.raises(SourceEnded, match="loader gave 6 batches, and 7 were planned; a generator can be gone through"):
        ft.evaluate(learner, state, iter(some), steps=7)


class Ending(IterableDataset):
    """Three batches, and no length: by PyTorch's own idiom, or by none."""

    def __iter__(self):
        return iter([(torch.ones(2, 4), torch.zeros(2, dtype=torch.int64))] * 3)


class EndingWithoutLength(Ending):
    def __len__(self):
        raise NotImplementedError


@pytest.mark.parametrize("make", [Ending, EndingWithoutLength, lambda: DataLoader(Ending(), batch_size=None)])
def test_what_begins_again_and_ends_too_early_is_not_taken_for_a_generator(make):
    learner, _, _, _ = batches()
    state = ft.init(learner, ft.random.key(0), next(iter(Ending())))
    run = ft.fit(learner, state, train=make(), steps=3, jit=False)
    assert int(run.state.step) == 3
    with pytest.raises(
        SourceEnded, match=r"train gave 3 batches, and 4 were planned; \w+ ends there: pass fewer steps"
    ):
        ft.fit(learner, state, train=make(), steps=4, jit=False)
