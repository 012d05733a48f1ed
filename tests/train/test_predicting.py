"""Predictions: one for each row that was asked about, whatever holds the rows and whatever they weigh."""

import re

import attrs
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from training_problems import Rows, problem

import functrain as ft
from functrain import data, losses, nn, optim
from functrain.errors import InvalidArgument, PaddingCounts, ShapeMismatch, SourceEnded

BOTH = pytest.mark.parametrize("jit", [False, "aten"])


@pytest.fixture(scope="module")
def fitted():
    learner, state, train, _ = problem()
    inputs, targets = train.dataset.arrays
    expected, _ = learner.model.apply(state.params, state.buffers, inputs)
    return learner, state, inputs, targets, expected


@BOTH
@pytest.mark.parametrize("weights", ["rows", "elements"])
@pytest.mark.parametrize("remainder", ["keep", "pad", "drop"])
@pytest.mark.parametrize("arrays", [True, False])
def test_rows_of_zero_weight_have_their_predictions(fitted, arrays, remainder, weights, jit):
    learner, state, inputs, targets, expected = fitted
    weight = torch.ones(50) if weights == "rows" else torch.ones(50, 3)
    weight[[0, 3, 8, 9, 10, 11, 12, 13, 14, 15, 49]] = 0
    targets = targets if weights == "rows" else targets[:, None].expand(50, 3)
    learner = attrs.evolve(learner, loss=lambda p, t: losses.cross_entropy(p[:, None].expand(-1, 3, -1), t), metrics={})
    dataset = data.ArrayDataset((inputs, targets, weight))
    rows = data.loader(dataset if arrays else Rows(dataset), data.sequential(8, remainder))
    got = ft.predict(learner, state, rows, jit=jit)
    assert len(got) == (48 if remainder == "drop" else 50)
    torch.testing.assert_close(got, expected[: len(got)])


@BOTH
@pytest.mark.parametrize("n", [5, 8, 16, 17])
def test_the_rows_of_padding_have_none(fitted, n, jit):
    learner, state, inputs, targets, expected = fitted
    shuffled = data.loader(data.ArrayDataset((inputs[:n], targets[:n])), data.shuffled(8, "pad"))
    order = torch.cat([data.indices(shuffled.sampler, ft.train.data_key(state), n, 0, k) for k in range(len(shuffled))])
    torch.testing.assert_close(ft.predict(learner, state, shuffled, jit=jit), expected[order[:n]])


SOURCES = {
    "DataLoader of pairs": lambda x, y: DataLoader(TensorDataset(x, y), 8),
    "DataLoader of inputs": lambda x, y: DataLoader(TensorDataset(x), 8),
    "list of pairs": lambda x, y: list(zip(x.split(8), y.split(8), strict=True)),
    "list of batches": lambda x, y: [data.Batch(a, b) for a, b in zip(x.split(8), y.split(8), strict=True)],
    "list without targets": lambda x, y: [(a, None) for a in x.split(8)],
    "generator of inputs": lambda x, y: (a for a in x.split(8)),
    "generator of triples": lambda x, y: ((a, None, torch.zeros(len(a))) for a in x.split(8)),
    "batch": lambda x, y: data.Batch(x, y),
    "inputs": lambda x, y: x,
}


@BOTH
@pytest.mark.parametrize("kind", SOURCES)
def test_any_source_of_batches_is_predicted(fitted, kind, jit):
    learner, state, inputs, targets, expected = fitted
    steps = "all" if "generator" in kind else None
    got = ft.predict(learner, state, SOURCES[kind](inputs, targets), jit=jit, steps=steps)
    torch.testing.assert_close(got, expected)


def test_a_dataloader_of_workers_is_predicted(fitted):
    learner, state, inputs, targets, expected = fitted
    loader = DataLoader(TensorDataset(inputs, targets), 8, num_workers=2)
    torch.testing.assert_close(ft.predict(learner, state, loader), expected)


@BOTH
def test_a_tree_of_inputs_is_no_list_of_batches(jit):
    model = nn.layer("sum", lambda x: {}, lambda p, x: x[0] + x[1])
    learner = ft.Learner(model, losses.mse, optim.sgd(0.1))
    x = [torch.ones(4, 2), torch.ones(4, 2)]
    state = ft.init(learner, ft.random.key(0), (x, torch.zeros(4, 2)))
    assert torch.equal(ft.predict(learner, state, x, jit=jit), torch.full((4, 2), 2.0))
    assert torch.equal(ft.predict(learner, state, [(x, None)], jit=jit), torch.full((4, 2), 2.0))


def test_what_is_no_source_is_refused(fitted):
    learner, state, inputs, targets, _ = fitted
    for wrong in (data.ArrayDataset((inputs, targets)), TensorDataset(inputs, targets)):
        with pytest.raises(InvalidArgument, match=r"inputs must be a Loader, or an iterable .* got \w+Dataset"):
            ft.predict(learner, state, wrong)
    with pytest.raises(InvalidArgument, match="a batch of the inputs must be an"):
        ft.predict(learner, state, ([x] * 4 for x in inputs.split(8)), steps="all")
    with pytest.raises(SourceEnded, match="inputs gave 0 batches, and at least one were planned"):
        ft.predict(learner, state, iter([]), steps="all")


@BOTH
def test_what_is_taken_for_the_input_though_it_is_none_says_so(fitted, jit):
    learner, state, inputs, targets, _ = fitted
    for wrong, note in (
        ((inputs, targets), r"the tuple of 2 was taken for the input .* data.Batch\(input, target\)"),
        ([inputs, inputs], r"the list of 2 was taken for the input .* make pairs, \[\(x, None\), \.\.\.\]"),
    ):
        with pytest.raises(Exception) as caught:  # what the model says
            ft.predict(learner, state, wrong, jit=jit)
        assert re.search(note, "\n".join(caught.value.__notes__))
    for empty, name in (([], "list"), ((), "tuple"), ({}, "dict")):
        with pytest.raises(InvalidArgument, match=f"inputs must be what the model takes, or .* got an empty {name}"):
            ft.predict(learner, state, empty, jit=jit)


def test_padding_that_the_model_mixes_in_is_refused(fitted):
    *_, inputs, targets, _ = fitted
    learner = ft.Learner(nn.serial(nn.dense(3), lambda x: x - x.mean(0)), losses.cross_entropy, optim.sgd(0.1))
    rows = data.ArrayDataset((inputs, targets))
    state = ft.init(learner, ft.random.key(0), rows[:1])
    with pytest.raises(PaddingCounts, match=r"inputs: remainder='pad' .* a step changes the predictions"):
        ft.predict(learner, state, data.loader(rows, data.sequential(8, "pad")))
    assert len(ft.predict(learner, state, data.loader(rows, data.sequential(8)))) == 50


def test_predictions_of_another_number_of_rows_are_refused_where_they_are_padded(fitted):
    *_, inputs, targets, _ = fitted
    learner = ft.Learner(nn.serial(nn.dense(4), lambda x: x.reshape(-1, 2)), losses.mse, optim.sgd(0.1))
    rows = data.ArrayDataset((inputs, targets))
    state = ft.init(learner, ft.random.key(0), rows[:1])
    with pytest.raises(ShapeMismatch, match=r"the predictions of a batch of 8 rows have shape \(16, 2\)"):
        ft.predict(learner, state, data.loader(rows, data.sequential(8, "pad")))
    assert ft.predict(learner, state, data.loader(rows, data.sequential(8))).shape == (100, 2)


def test_state_and_batches_are_moved_to_the_device(fitted):
    learner, state, inputs, targets, expected = fitted
    rows = data.ArrayDataset((inputs, targets))
    sources = (
        inputs,
        [(inputs, targets)],
        data.loader(rows, data.sequential(8)),
        data.loader(Rows(rows), data.sequential(8)),
    )
    for source in sources:  # a device without memory shows that something was moved
        assert ft.predict(learner, state, source, jit=False, device="meta").device.type == "meta"
        torch.testing.assert_close(ft.predict(learner, state, source, device="cpu"), expected)
    seen = []
    watched = attrs.evolve(learner, loss=lambda p, t: seen.append((p.device.type, t.device.type)) or 1 / 0)
    for source in sources[1:]:
        with pytest.raises(ZeroDivisionError):
            ft.evaluate(watched, state, source, jit=False, device="meta")
        assert seen.pop() == ("meta", "meta")
        values = [ft.evaluate(learner, state, source, device=device) for device in (None, "cpu")]
        assert values[0] == values[1]


# Evaluating


@BOTH
@pytest.mark.parametrize("weighted", [False, True])
def test_named_parts_of_the_loss_are_evaluated_as_in_validation(fitted, weighted, jit):
    learner, state, inputs, targets, _ = fitted

    def loss(p, t):
        return {"loss": losses.cross_entropy(p, t) + p.square().sum(1), "size": p.square().sum(1)}

    learner = attrs.evolve(learner, loss=loss, optimizer=optim.sgd(0.0, momentum=0.9))
    weight = torch.rand(50, generator=torch.Generator().manual_seed(0))
    rows = data.ArrayDataset((inputs, targets, weight) if weighted else (inputs, targets))
    valid = data.loader(rows, data.sequential(8))
    run = ft.fit(learner, state, train=valid, valid={"v": valid}, epochs=1, jit=jit)
    values = ft.evaluate(learner, run.state, valid, jit=jit)
    shown = {name.removeprefix("v/"): value for name, value in run.history[0].items() if name.startswith("v/")}
    assert values == shown and set(values) == {"loss", "accuracy", "size"}
    prediction, _ = learner.model.apply(run.state.params, run.state.buffers, inputs)
    weight = weight if weighted else torch.ones(50)
    expected = (prediction.square().sum(1) * weight).double().sum() / weight.double().sum()
    assert values["size"] == pytest.approx(float(expected), rel=1e-5)
    for other in (list(data.batches(valid)), DataLoader(TensorDataset(*rows.arrays), 8)):
        assert ft.evaluate(learner, run.state, other, jit=jit) == pytest.approx(values, rel=1e-5)
