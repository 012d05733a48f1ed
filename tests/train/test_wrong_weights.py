"""Negative, infinite and NaN weights are refused wherever batches come from."""

import pytest
import torch
from training_problems import Rows, problem

import functrain as ft
from functrain import data
from functrain.errors import InvalidArgument

BOTH = pytest.mark.parametrize("jit", [False, "aten"])
WRONG = pytest.mark.parametrize("wrong", [-0.5, float("nan"), float("inf"), float("-inf")])
MESSAGE = r"weight.* must be finite and at least 0, got "


def weighted(batch, wrong):
    """Return the batch with weights of which the second is wrong."""
    weight = torch.ones(len(batch.target))
    weight[1] = wrong
    return data.Batch(batch.input, batch.target, weight)


def batches(wrong):
    """Return seven batches, of which the fourth has a wrong weight."""
    _, _, train, _ = problem()
    plain = [data.as_batch(train.dataset[8 * k : 8 * k + 8]) for k in range(7)]
    plain = [data.Batch(b.input, b.target, torch.ones(len(b.target))) for b in plain]
    return [weighted(b, wrong) if k == 3 else b for k, b in enumerate(plain)]


def triple(batch):
    return batch.input, batch.target, batch.weight


def transformed(wrong):
    _, _, train, _ = problem()
    transform = lambda key, batch: weighted(batch, wrong)  # noqa: E731
    return data.loader(train.dataset, data.sequential(8), transform=transform)


def of_examples(wrong):
    _, _, train, _ = problem()
    rows = [(*train.dataset[k], torch.tensor(wrong if k == 20 else 1.0)) for k in range(50)]
    return data.loader(Rows(rows), data.sequential(8))


SOURCES = {
    "list": batches,
    "triples": lambda wrong: [triple(batch) for batch in batches(wrong)],
    "generator": lambda wrong: (batch for batch in batches(wrong)),
    "DataLoader": lambda wrong: torch.utils.data.DataLoader(batches(wrong), batch_size=None),
    "transform": transformed,
    "examples": of_examples,
}


@BOTH
@WRONG
@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_of_batches(jit, wrong, kind):
    learner, state, _, valid = problem()
    with pytest.raises(InvalidArgument, match=MESSAGE + str(wrong)):
        ft.fit(learner, state, train=SOURCES[kind](wrong), steps=7, jit=jit)
    with pytest.raises(InvalidArgument, match=MESSAGE + str(wrong)):
        ft.fit(learner, state, train=valid, valid=SOURCES[kind](wrong), valid_steps="all", epochs=1, jit=jit)
    with pytest.raises(InvalidArgument, match=MESSAGE + str(wrong)):
        ft.evaluate(learner, state, SOURCES[kind](wrong), steps="all", jit=jit)


@BOTH
@pytest.mark.parametrize("kind", ["list", "generator"])
def test_a_loop_of_ones_own(jit, kind):
    def step(total, batch):
        return total + batch.input.sum(), {"sum": batch.input.sum()}

    with pytest.raises(InvalidArgument, match=MESSAGE):
        ft.loop(step, torch.tensor(0.0), key=ft.random.key(0), train=SOURCES[kind](-1.0), steps=7, jit=jit)


@WRONG
def test_a_step_by_hand(wrong):
    learner, state, train, _ = problem()
    batch = weighted(data.as_batch(train.dataset[:8]), wrong)
    for one in (batch, triple(batch)):
        for call in (
            lambda one=one: ft.train_step(learner)(state, one),
            lambda one=one: ft.eval_step(learner)(state, one),
            lambda one=one: ft.overfit_batch(learner, state, one, steps=1),
            lambda one=one: data.as_batch(one),
        ):
            with pytest.raises(InvalidArgument, match=f"a batch: {MESSAGE}{wrong}"):
                call()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_weights_of_elements_and_of_any_dtype(dtype):
    inputs = torch.zeros(2, 3)
    with pytest.raises(InvalidArgument, match="must be finite and at least 0, got -1"):
        data.as_batch((inputs, inputs, torch.tensor([[0, 1, 2], [3, -1, 0]]).to(dtype)))
    assert data.as_batch((inputs, inputs, torch.tensor([[0, 1, 2], [3, 1, 0]]).to(dtype))).weight.dtype == dtype
    assert data.as_batch((inputs, inputs, torch.zeros(2, 3, dtype=torch.bool))).weight is not None


def test_traced_weights_are_taken_as_they_are():
    learner, state, train, _ = problem()
    step = ft.jit(ft.train_step(learner))
    after, _ = step(state, weighted(data.as_batch(train.dataset[:8]), 2.0))
    assert int(after.updates) == 1
