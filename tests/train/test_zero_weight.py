"""What has zero weight has no influence at all, whatever it holds."""

import math

import attrs
import pytest
import torch
from training_problems import eager, problem

import functrain as ft
from functrain import data, losses, metrics, nn, optim, tree
from functrain.errors import ShapeMismatch
from functrain.train.stepping.weights import without_influence

NAN = float("nan")


def step_of(learner, jit, **options):
    step = ft.train_step(learner)
    return ft.jit(step, backend=jit, **options) if jit else step


@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.parametrize(
    ("model", "optimizer"),
    [(None, optim.sgd(0.1, momentum=0.9)), (nn.serial(nn.dense(6), nn.relu, nn.dense(3)), optim.adamw(0.1))],
    ids=["batch norm", "adamw"],
)
@pytest.mark.parametrize(
    "filling", [(NAN, 0), (math.inf, 1), (1e30, 99), (0.0, -1)], ids=["nan", "inf", "label 99", "label -1"]
)
def test_a_row_of_zero_weight_may_hold_anything(jit, model, optimizer, filling):
    learner, state, train, _ = problem(n=16, model=model, optimizer=optimizer)
    inputs, targets = train.dataset[:6]
    bad_input, bad_target = filling
    padded = data.Batch(
        torch.cat([inputs, torch.full((2, 4), bad_input)]),
        torch.cat([targets, torch.full((2,), bad_target)]),
        torch.tensor([1.0, 1, 1, 1, 1, 1, 0, 0]),
    )
    step = step_of(learner, jit)
    state = attrs.evolve(state, buffers=tree.map(torch.clone, state.buffers))
    expected, logs = step(state, (inputs, targets))
    got, padded_logs = step(state, padded)
    assert not tree.differences(got, expected, rtol=1e-4, atol=1e-5)
    assert not tree.differences(padded_logs, logs, rtol=1e-5)
    other = attrs.evolve(padded, input=padded.input.masked_fill(padded.weight[:, None] == 0, 5.0))
    assert tree.equal(step(state, other), step(state, padded))


def test_the_mae_of_a_nan_target_has_no_gradient():
    learner = ft.Learner(nn.dense(1), losses.mae, optim.sgd(0.1))
    x, y, w = torch.ones(3, 2), torch.tensor([[1.0], [2.0], [NAN]]), torch.tensor([1.0, 1.0, 0.0])
    state = ft.init(learner, ft.random.key(0), (x, y))
    got, _ = ft.train_step(learner)(state, (x, y, w))
    expected, _ = ft.train_step(learner)(state, (x[:2], y[:2]))
    assert not tree.differences(got.params, expected.params, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.parametrize("optimizer", [optim.adamw(0.1), optim.accumulate(2, optim.sgd(0.1, momentum=0.9))])
@pytest.mark.parametrize("held", [NAN, 0.5])
def test_a_batch_of_no_weight_is_counted_and_changes_nothing_else(jit, optimizer, held):
    learner, state, train, _ = problem(n=16, optimizer=optimizer)
    inputs, targets = train.dataset[:8]
    for label in (0, 99):
        batch = data.Batch(torch.full_like(inputs, held), torch.full_like(targets, label), torch.zeros(8))
        after, _ = step_of(learner, jit)(state, batch)
        assert tree.equal(after, attrs.evolve(state, step=state.step + 1))


@pytest.mark.parametrize("jit", [False, "aten"])
def test_an_element_of_zero_weight_counts_as_input_and_not_as_target(jit):
    model = nn.serial(nn.dense(4), nn.relu, nn.dense(5))
    learner = ft.Learner(model, losses.cross_entropy, optim.sgd(0.1), {"accuracy": metrics.accuracy})
    inputs, targets = torch.randn(3, 7, 2), torch.randint(5, (3, 7))
    weight = (torch.rand(3, 7) > 0.4).float()
    weight[2] = 0
    weight[0, 0] = 1
    state = ft.init(learner, ft.random.key(0), (inputs, targets))
    step = step_of(learner, jit)
    expected, logs = step(state, data.Batch(inputs, targets, weight))
    spoiled = torch.where(weight == 0, 99, targets)
    rows = inputs.clone()
    rows[2] = NAN
    got, same_logs = step(state, data.Batch(rows, spoiled, weight))
    assert tree.equal((got, same_logs), (expected, logs))
    prediction, _ = model.apply(state.params, {}, inputs)
    values = losses.cross_entropy(prediction, targets)
    assert float(logs["loss"]) == pytest.approx(float((values * weight).sum() / weight.sum()), rel=1e-5)
    right = (prediction.argmax(-1) == targets).float()
    assert float(logs["accuracy"]) == pytest.approx(float((right * weight).sum() / weight.sum()), rel=1e-6)


def test_weights_of_elements_that_the_target_has_not_are_named():
    learner = ft.Learner(nn.serial(lambda x: x.mean(1), nn.dense(2)), losses.cross_entropy, optim.sgd(0.1))
    batch = data.Batch(torch.ones(3, 7, 2), torch.zeros(3, dtype=torch.int64), torch.ones(3, 7))
    state = ft.init(learner, ft.random.key(0), (batch.input, batch.target))
    message = r"weight has shape \(3, 7\), one for each element, and the target has shape \(3,\)"
    with pytest.raises(ShapeMismatch, match=message):
        ft.train_step(learner)(state, batch)
    with pytest.raises(ShapeMismatch, match=message) as caught:
        ft.fit(learner, state, train=[batch], epochs=1)
    assert "while trying the first batch of train, before training" in caught.value.__notes__


def test_without_weights_nothing_is_added_to_the_graph():
    batch = data.Batch(torch.ones(3, 2), torch.ones(3))
    assert without_influence(batch) is batch


def test_replacing_works_under_vmap():
    inputs, weight = torch.randn(4, 3, 2), torch.tensor([[1.0, 0, 1], [0, 0, 1], [0, 0, 0], [1, 1, 1]])

    def replaced(x, w):
        return without_influence(data.Batch(x, x[:, 0], w)).input

    got = torch.func.vmap(replaced)(inputs, weight)
    expected = torch.stack([replaced(x, w) for x, w in zip(inputs, weight, strict=True)])
    assert torch.equal(got, expected)


@pytest.mark.parametrize("jit", [False, "aten"])
def test_a_fit_over_batches_of_which_some_have_no_weight(jit):
    learner, state, train, _ = problem(n=32, optimizer=optim.adamw(0.05))
    inputs, targets = train.dataset[:]
    weights = torch.ones(32)
    weights[8:16] = 0
    rows = [data.Batch(inputs[k : k + 8], targets[k : k + 8], weights[k : k + 8]) for k in range(0, 32, 8)]
    run = ft.fit(learner, state, train=rows, epochs=1, jit=jit)
    assert (int(run.state.step), int(run.state.updates)) == (4, 3)
    assert run.history["train/loss"][0] == pytest.approx(
        eager(learner, state, rows, epochs=1).history["train/loss"][0], rel=1e-5
    )
