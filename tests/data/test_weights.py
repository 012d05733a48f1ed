"""Batches with weights of rows and of elements, and targets that are None: from datasets to the step."""

import math
from functools import partial

import attrs
import pytest
import torch
from toolz import pipe

import functrain as ft
from functrain import data, losses, nn, optim, random, tree
from functrain.data import ArrayDataset, Batch, as_batch
from functrain.errors import InvalidArgument, NotATensor, ShapeMismatch

KEY = random.key(3)
X = torch.arange(14.0).reshape(7, 2)
Y = torch.arange(7)
ROWS = torch.tensor([1.0, 0.5, 2.0, 0.0, 3.0, 1.0, 0.25])
ELEMENTS = torch.arange(21.0).reshape(7, 3)

ARRAYS = {
    "pair": (X, Y),
    "pair as a list": [X, Y],
    "batch": Batch(X, Y),
    "no target": (X, None),
    "no target, as a batch": Batch(X, None, ROWS),
    "rows": (X, Y, ROWS),
    "no weight": (X, Y, None),
    "elements": (X, Y, ELEMENTS),
    "mask": (X, Y, ELEMENTS > 3),
    "batch with elements": Batch({"a": X, "b": Y}, (Y, None), ELEMENTS),
}


@attrs.frozen
class Record:
    """A record of a user's own, which is no node of a tree."""

    tokens: torch.Tensor


def triple(arrays):
    return (arrays.input, arrays.target, arrays.weight) if isinstance(arrays, Batch) else (*arrays, None)[:3]


def one_by_one(arrays):
    return [ArrayDataset(arrays)[i] for i in range(7)]


DATASETS = {"arrays": ArrayDataset, "examples": one_by_one}
SAMPLERS = {"sequential": data.sequential, "shuffled": data.shuffled}


@pytest.mark.parametrize("remainder", ["keep", "drop", "pad"])
@pytest.mark.parametrize("kind", DATASETS)
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", ARRAYS)
def test_batches_are_the_rows_of_what_the_dataset_holds(name, sampler, kind, remainder):
    which = SAMPLERS[sampler](3, remainder)
    loader = data.loader(DATASETS[kind](ARRAYS[name]), which)
    inputs, targets, weights = triple(ARRAYS[name])
    for step, batch in enumerate(data.batches(loader, KEY)):
        index = data.indices(which, KEY, 7, 0, step)
        assert type(batch) is Batch
        expected = data.gather(Batch(inputs, targets, weights), index)
        if remainder == "pad":
            padding = torch.tensor([1.0, 1.0, 1.0] if step < 2 else [1.0, 0.0, 0.0])
            own = torch.ones(3) if weights is None else expected.weight
            shaped = padding.reshape(-1, *[1] * (own.dim() - 1))
            expected = tree.evolve(expected, weight=(own * shaped).to(own.dtype))
        assert tree.equal(batch, expected)


@pytest.mark.parametrize("name", ARRAYS)
def test_the_rows_that_a_compiled_loop_gathers_are_those_batches(name):
    loader = data.loader(ArrayDataset(ARRAYS[name]), data.shuffled(3, "pad"))
    block, padding = data.index_block(loader, KEY, 0, 0, 3)
    assert data.is_resident(loader) and padding is not None
    for step, batch in enumerate(data.batches(loader, KEY)):
        gathered = as_batch(data.gather(ARRAYS[name], block[step]), padding=padding[step])
        assert tree.equal(gathered, batch)


@pytest.mark.parametrize("kind", DATASETS)
@pytest.mark.parametrize("name", ["rows", "no target", "batch with elements"])
def test_inputs_are_mapped_and_all_else_stays(name, kind):
    arrays = ARRAYS[name]
    mapped = data.map_input(lambda x: tree.map(lambda leaf: 2 * leaf, x), DATASETS[kind](arrays))
    batch = data.one_batch(data.loader(mapped, data.sequential(7)))
    inputs, targets, weights = triple(arrays)
    assert tree.equal(batch, Batch(tree.map(lambda leaf: 2 * leaf, inputs), targets, weights))
    assert type(mapped[0]) is type(DATASETS[kind](arrays)[0])


def test_a_normalizer_looks_at_the_inputs_of_triples():
    rows = ArrayDataset((X, Y, ROWS))
    normalize = data.fit_normalizer(rows, axis=1)
    assert tree.equal(normalize, data.fit_normalizer(X[ROWS > 0], axis=1))
    poisoned = ArrayDataset((X.masked_fill(ROWS[:, None] == 0, math.nan), Y, ROWS[:, None].expand(7, 3)))
    assert tree.equal(normalize, data.fit_normalizer(poisoned, axis=1))
    assert tree.equal(data.fit_normalizer(ArrayDataset((X, None, ELEMENTS))), data.fit_normalizer(X))
    inputs, targets, weights = pipe(rows, data.map_input(normalize)).arrays
    assert torch.equal(inputs, normalize(X)) and targets is Y and weights is ROWS


def test_collate_functions_and_transforms_may_return_any_of_the_three():
    def negated(key, batch):
        return -batch.input, batch.target, batch.weight

    rows = [(X[i], Y[i], float(ROWS[i])) for i in range(7)]
    for collate in (data.stack, lambda es: Batch(*data.stack(es)), lambda es: list(data.stack(es))):
        loader = data.loader(rows, data.sequential(7), collate, negated)
        assert tree.equal(next(data.batches(loader, KEY)), Batch(-X, Y, ROWS))


def test_sequences_are_padded_beside_a_target_of_none():
    examples = [(torch.arange(n), None, n * 1.0) for n in (1, 3)]
    batch = data.one_batch(data.loader(examples, data.sequential(2), partial(data.pad, length=4)))
    assert batch.target is None and batch.weight.tolist() == [1.0, 3.0]
    assert batch.input.values.tolist() == [[0, 0, 0, 0], [0, 1, 2, 0]]


def test_an_array_dataset_with_none_reads_well():
    assert repr(ArrayDataset((X, None))) == "ArrayDataset(7 rows of (float32(2,), None))"
    assert ArrayDataset((None, Y))[2] == (None, Y[2]) and len(ArrayDataset((None, Y))) == 7


@pytest.mark.parametrize("weight", [None, ROWS, ELEMENTS])
def test_stacked_batches_can_be_scanned(weight):
    batches = [Batch(X + i, None if i < 0 else Y, weight) for i in range(4)]

    def step(total, batch):
        assert batch.weight is None or batch.weight.shape == weight.shape
        counted = batch.weight if weight is not ELEMENTS else None
        return total + losses.weighted_mean(batch.input, counted), batch.target.sum()

    expected = ft.fold(step, torch.tensor(0.0), batches)
    for run in (ft.scan, ft.jit(lambda carry, xs: ft.scan(step, carry, xs))):
        total, sums = (
            run(torch.tensor(0.0), data.stack(batches))
            if run is not ft.scan
            else run(step, torch.tensor(0.0), data.stack(batches))
        )
        torch.testing.assert_close(total, expected[0])
        assert sums.tolist() == [int(Y.sum())] * 4


def test_gradients_and_vmap_go_through_a_scan_over_batches_without_weights():
    stacked = data.stack([Batch(X * (i + 1), None) for i in range(3)])

    def total(factor):
        return ft.scan(lambda c, batch: (c + (factor * batch.input).sum(), None), torch.tensor(0.0), stacked)[0]

    assert ft.grad(total)(torch.tensor(2.0)).item() == 6 * X.sum()
    assert ft.vmap(total)(torch.tensor([1.0, 2.0])).tolist() == [6 * X.sum(), 12 * X.sum()]
    assert ft.jit(ft.grad(total))(torch.tensor(2.0)).item() == 6 * X.sum()


@pytest.mark.parametrize("weight", [ROWS, ROWS > 0.4, torch.rand(7, 2, generator=torch.Generator().manual_seed(0))])
def test_a_step_weighs_rows_and_elements(weight):
    learner = ft.Learner(nn.dense(2), losses.mae, optim.sgd(0.1))
    state = ft.init(learner, random.key(0), (X, X))
    after, logs = ft.train_step(learner)(state, (X, X * 3, weight))
    error = (X @ state.params["weight"].T + state.params["bias"] - 3 * X).abs()
    spread = weight.double().reshape(7, -1).expand(7, 2)
    assert logs["loss"].item() == pytest.approx(float((error * spread).sum() / spread.sum()), rel=1e-6)
    direction = (X @ state.params["weight"].T + state.params["bias"] - 3 * X).sign() * spread
    expected = state.params["bias"] - 0.1 * (direction.sum(0) / spread.sum()).float()
    torch.testing.assert_close(after.params["bias"], expected)


def test_a_fit_with_weights_in_the_dataset_is_that_of_its_batches():
    def fitted(dataset, **options):
        learner = ft.Learner(nn.dense(1), losses.mse, optim.sgd(0.001))
        state = ft.init(learner, random.key(0), (X[:1], X[:1, :1]))
        return ft.fit(learner, state, train=data.loader(dataset, data.shuffled(3)), epochs=2, **options).state.params

    arrays = (X, X[:, :1], ROWS)
    eager = fitted(ArrayDataset(arrays), jit=False)
    for other in (fitted(ArrayDataset(arrays)), fitted(one_by_one(arrays), jit=False), fitted(one_by_one(arrays))):
        assert not tree.differences(eager, other, rtol=1e-5, atol=1e-7)
    assert tree.differences(eager, fitted(ArrayDataset(arrays[:2]), jit=False), rtol=1e-3)


@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.parametrize("kind", DATASETS)
def test_a_fit_without_targets(kind, jit):
    def energy(prediction, target):
        assert target is None
        return (prediction - 1).square()

    learner = ft.Learner(nn.dense(1), energy, optim.sgd(0.01))
    state = ft.init(learner, random.key(0), (X[:1], None))
    loader = data.loader(DATASETS[kind]((X / 14, None)), data.sequential(7))
    result = ft.fit(learner, state, train=loader, valid=loader, epochs=3, jit=jit)
    assert result.history["train/loss"][2] < result.history["train/loss"][0]


# Faults


class Broken:
    def __len__(self):
        return 20

    def __getitem__(self, index):
        if index == 13:
            raise OSError("unreadable")
        return (X[0], 0) if index != 17 else (X[0, :1], 0)


def test_a_failing_row_is_named():
    loader = data.loader(Broken(), data.sequential(5))
    with pytest.raises(OSError, match="unreadable") as raised:
        list(data.batches(loader))
    assert "raised by the dataset (Broken) for the example of index 13" in raised.value.__notes__
    with pytest.raises(ShapeMismatch, match="leaf 0 of the examples must have one shape") as raised:
        list(data.batches(loader, start=3))
    assert "raised while collating the examples of the indices 15, 16, 17, 18, 19" in raised.value.__notes__


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf, -math.inf])
def test_weights_that_are_none_are_refused_before_training(wrong):
    weight = ROWS.clone()
    weight[4] = wrong
    message = rf"weights of the dataset must be finite and at least 0, got {wrong:g}"
    with pytest.raises(InvalidArgument, match=message):
        data.loader(ArrayDataset((X, Y, weight)), data.sequential(3))
    examples = [(X[i], Y[i], weight[i]) for i in range(7)]
    loader = data.loader(examples, data.sequential(3))
    with pytest.raises(InvalidArgument, match="the weights of the examples must be finite"):
        list(data.batches(loader))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: as_batch((None, Y)), NotATensor, "a batch: input holds no tensor, got NoneType"),
        (lambda: as_batch((Record(Y), Y)), NotATensor, "a node with tree.node, or pass a dict"),
        (lambda: as_batch((X, None, Y[:3])), ShapeMismatch, r"weight must have shape \(7,\), one for a row, or"),
        (lambda: as_batch((X, {"a": None, "b": Y[:3]})), ShapeMismatch, "7 rows of input and 3 rows of target"),
        (
            lambda: as_batch(3, what="this"),
            InvalidArgument,
            "this must be an .* triple or a Batch, got int",
        ),
        (lambda: ArrayDataset((None, None)), InvalidArgument, "the dataset has no arrays"),
        (lambda: ArrayDataset((X, "y")), NotATensor, "leaf 1 must be a tensor, got str"),
        (
            lambda: next(data.batches(data.loader([(1.0, 2)], data.sequential(1), transform=lambda k, b: None), KEY)),
            InvalidArgument,
            "what the loader's transform returns must be .* got NoneType",
        ),
        (lambda: data.stack([Batch(X, Y), Batch(X, Y, ROWS)]), NotATensor, "leaf weight of the examples must be"),
    ],
)
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
