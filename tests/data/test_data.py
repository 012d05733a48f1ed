"""Datasets, batches, collate, normalisation, digits: values against plain indexing, and every error message."""

import builtins

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toolz import pipe

from functrain import data, tree
from functrain.data import ArrayDataset, Batch, as_batch
from functrain.errors import (
    DtypeMismatch,
    IndexOutOfRange,
    InvalidArgument,
    MissingExtra,
    NotATensor,
    ShapeMismatch,
    TreeMismatch,
)

X = torch.arange(20.0).reshape(10, 2)
Y = torch.arange(10) * 11


@pytest.fixture
def rows():
    return ArrayDataset((X, Y))


# ArrayDataset


def test_an_integer_gives_one_example(rows):
    assert len(rows) == 10
    x, y = rows[3]
    assert x.tolist() == [6.0, 7.0] and y.shape == () and int(y) == 33
    assert tree.equal(rows[-1], rows[9]) and tree.equal(rows[torch.tensor(2)], rows[2])


@pytest.mark.parametrize(
    "index",
    [
        slice(None),
        slice(0, 1),
        slice(2, 9, 3),
        slice(None, None, -2),
        slice(8, 1, -3),
        slice(-3, None),
        slice(5, 5),
        [],
        [0, 9, 0],
        [-1, -10],
        range(2, 5),
        torch.tensor([4, -4]),
        torch.tensor([4, 5], dtype=torch.uint8),
        Y > 40,
    ],
    ids=repr,
)
def test_many_rows_are_those_that_plain_lists_give(rows, index):
    everything = list(range(10))
    if isinstance(index, slice):
        expected = everything[index]
    elif isinstance(index, torch.Tensor) and index.dtype == torch.bool:
        expected = index.nonzero().flatten().tolist()
    else:
        expected = [everything[int(i)] for i in index]
    x, y = rows[index]
    assert y.tolist() == [11 * i for i in expected]
    assert x.tolist() == [X[i].tolist() for i in expected] and x.shape[1:] == (2,)


def test_any_tree_will_do_and_iteration_ends():
    rows = ArrayDataset({"image": X, "label": {"class": Y}})
    assert tree.equal(rows[[1]], {"image": X[1:2], "label": {"class": Y[1:2]}})
    assert len(list(rows)) == 10
    assert ArrayDataset(X)[0].tolist() == [0.0, 1.0]


def test_slices_are_views_and_nothing_is_copied(rows):
    assert rows[2:4][0].data_ptr() == X[2].data_ptr()


def test_it_prints_what_it_holds(rows):
    assert repr(rows) == "ArrayDataset(10 rows of (float32(2,), int64()))"


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ((X[:0], Y[:0]), InvalidArgument, "the dataset is empty"),
        ((), InvalidArgument, "has no arrays"),
        ((X, Y[:7]), ShapeMismatch, r"equally many rows, got 0: 10, 1: 7"),
        ({"x": X, "y": Y[:7]}, ShapeMismatch, r"got x: 10, y: 7"),
        ((X, torch.tensor(3)), ShapeMismatch, "array 1 is a scalar"),
        ((X, list(range(10))), NotATensor, r"leaf 1\.0 must be a tensor, got int"),
    ],
)
def test_arrays_that_are_no_dataset(arrays, error, message):
    with pytest.raises(error, match=message):
        ArrayDataset(arrays)


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (10, IndexOutOfRange, "index 10 is out of range: the dataset has 10 rows, pass -10 to 9"),
        (-11, IndexOutOfRange, "index -11"),
        ([0, 10], IndexOutOfRange, "index 10 is out of range"),
        (torch.tensor([0, -11]), IndexOutOfRange, "index -11 is out of range"),
        (torch.tensor([[0]]), ShapeMismatch, r"must have one axis, got shape \(1, 1\)"),
        (torch.ones(3, dtype=torch.bool), ShapeMismatch, r"a mask of the dataset must have shape \(10,\), got \(3,\)"),
        (1.5, DtypeMismatch, "must be integers, got torch.float32"),
        ([0.0], DtypeMismatch, r"convert them with \.long\(\)"),
        ("first", InvalidArgument, "an index tensor, got str: 'first'"),
        ((1, 2), InvalidArgument, "got tuple"),
        (None, InvalidArgument, "got NoneType"),
    ],
    ids=repr,
)
def test_what_is_no_index(rows, index, error, message):
    with pytest.raises(error, match=message):
        rows[index]


def test_sample(rows):
    assert tree.equal(data.example(rows, 3), rows[3]) and tree.equal(data.example(rows), rows[0])
    assert tree.equal(data.example(data.loader(rows, data.sequential(4)), -1), rows[9])
    assert data.example(["a", "b"], -1) == "b"
    with pytest.raises(IndexOutOfRange, match="the dataset has 2 rows"):
        data.example(["a", "b"], 2)
    with pytest.raises(InvalidArgument, match=r"i must be the index of one example, an integer, got slice"):
        data.example(rows, slice(1))


# Batches


def test_as_batch_takes_pairs_triples_and_batches():
    weight = torch.ones(10)
    assert tree.equal(as_batch((X, Y)), Batch(X, Y)) and tree.equal(as_batch([X, Y]), Batch(X, Y))
    assert tree.equal(as_batch((X, Y, weight)), Batch(X, Y, weight))
    batch = Batch({"a": X}, (Y, Y))
    assert as_batch(batch) is batch


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (X, InvalidArgument, r"\(input, target\) pair.*got float32\(10, 2\)"),
        ((X,), InvalidArgument, "got a tuple of 1"),
        ({"x": X, "y": Y}, InvalidArgument, "got a dict with the keys 'x', 'y'"),
        ((X[:0], Y[:0]), InvalidArgument, "a batch has no rows"),
        (Batch(X[:0], Y[:0]), InvalidArgument, "a batch has no rows"),
        ((X, Y[:9]), ShapeMismatch, "10 rows of input and 9 rows of target"),
        ((X, Y.tolist()), NotATensor, "target holds no tensor, got a list of 10"),
        ((X[0, 0], Y), ShapeMismatch, "input is a scalar"),
        (
            (X, Y, torch.ones(9)),
            ShapeMismatch,
            r"weight must have shape \(10,\), one for a row, or \(10, .* got \(9,\)",
        ),
        ((X, Y, torch.ones(1, 10)), ShapeMismatch, r"got \(1, 10\)"),
        ((X, Y, 1.0), NotATensor, r"weight must be a tensor of shape \(n, ...\) or None, got float"),
        ((X, Y, X * 1j), DtypeMismatch, r"weight must be real numbers or booleans, got complex64\(10, 2\)"),
    ],
    ids=range(12),
)
def test_what_is_no_batch(given, error, message):
    with pytest.raises(error, match=message):
        as_batch(given)


# Collate


def test_stack_is_torch_stack_on_each_leaf():
    stacked = data.stack([{"x": X[i], "n": i, "f": float(i)} for i in range(3)])
    assert tree.equal(stacked, {"x": X[:3], "n": torch.arange(3), "f": torch.arange(3.0)})


def test_batches_stack_for_a_scan():
    batches = list(data.batches(data.loader(data.ArrayDataset((X, X[:, 0])), data.sequential(2, remainder="drop"))))
    stacked = data.stack(batches)
    assert stacked.weight is None and torch.equal(stacked.input.flatten(0, 1), X[: 2 * len(batches)])


def test_stack_takes_numpy_arrays():
    assert torch.equal(data.stack([X[0].numpy(), X[1].numpy()]), X[:2])


@pytest.mark.parametrize("collate", [data.stack, data.pad])
@pytest.mark.parametrize(
    ("examples", "error", "message"),
    [
        ([], InvalidArgument, "no examples to collate"),
        ([{"a": 1}, {"b": 1}], TreeMismatch, "b: expected nothing"),
        ([(X[0], "cat"), (X[1], "dog")], NotATensor, "leaf 1 of the examples must be a tensor or a number, got str"),
    ],
)
def test_examples_that_cannot_be_collated(collate, examples, error, message):
    with pytest.raises(error, match=message):
        collate(examples)


def test_stack_points_to_pad():
    with pytest.raises(
        ShapeMismatch, match=r"leaf 0 of the examples must have one shape, got \(2,\), \(3,\); data.pad"
    ):
        data.stack([(torch.ones(2), 0), (torch.ones(3), 1)])


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(0, 3), st.sampled_from([0, -1]))
def test_pad_holds_each_sequence_and_marks_the_rest(lengths, extra, value):
    sequences = [torch.arange(1.0, 1 + 2 * n).reshape(n, 2) for n in lengths]
    length = max(max(lengths) + extra, 1)
    batch = data.pad(sequences, length=length, value=value)
    assert batch.values.shape == (len(lengths), length, 2) and batch.mask.shape == (len(lengths), length)
    assert batch.mask.sum(1).tolist() == lengths
    for row, mask, sequence in zip(batch.values, batch.mask, sequences, strict=True):
        assert torch.equal(row[mask], sequence) and bool((row[~mask] == value).all())


def test_pad_keeps_scalars_and_the_structure_for_equal_lengths():
    (x, y) = data.pad([(torch.ones(3), 0), (torch.ones(3), 1)])
    assert bool(x.mask.all()) and y.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("examples", "options", "error", "message"),
    [
        ([torch.ones(5)], {"length": 4}, ShapeMismatch, "a sequence has length 5, more than length=4"),
        ([torch.ones(5)], {"length": 0}, InvalidArgument, "length must be a whole number of at least 1 or None, got 0"),
        ([torch.ones(5)], {"length": True}, InvalidArgument, "got True"),
        ([torch.ones(2, 3), torch.ones(2, 4)], {}, ShapeMismatch, r"after the first axis, got \(3,\), \(4,\)"),
        ([torch.ones(2), torch.tensor(1.0)], {}, ShapeMismatch, r"got \(\), a scalar"),
    ],
)
def test_sequences_that_cannot_be_padded(examples, options, error, message):
    with pytest.raises(error, match=message):
        data.pad(examples, **options)


# Normalisation


def test_one_mean_and_deviation_over_everything():
    x = torch.randn(200, 3, 4, generator=torch.Generator().manual_seed(0)) * 3 + 5
    normalize = data.fit_normalizer(x)
    assert normalize.mean.shape == () and normalize.mean.dtype == torch.float32
    torch.testing.assert_close(normalize.mean, x.mean())
    torch.testing.assert_close(normalize.std, x.std(correction=0))
    torch.testing.assert_close(normalize(x), (x - x.mean()) / x.std(correction=0))


@pytest.mark.parametrize("axis", [1, 3, -3])
def test_statistics_by_channel(axis):
    x = torch.randn(50, 3, 4, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2.0, 3.0])
    normalize = data.fit_normalizer(x, axis=axis)
    over = [a for a in range(4) if a != axis % 4]
    done = normalize(x)
    torch.testing.assert_close(done.mean(over), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(done.std(over, correction=0), torch.ones(3))
    assert torch.equal(normalize(x[7]), done[7])  # one example as well as a batch


def test_it_is_exact_over_many_parts_and_in_float64():
    x = torch.rand(3, 3_000_000, generator=torch.Generator().manual_seed(0)) + 1000
    normalize = data.fit_normalizer(x)
    torch.testing.assert_close(normalize.std, x.double().std(correction=0).float(), rtol=1e-6, atol=0)
    wide = data.fit_normalizer(x.double())
    assert wide.mean.dtype == torch.float64 and wide(x.double()).dtype == torch.float64
    assert wide(x[:, :5]).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("constant", [0.0, 0.1, -1e6 / 3])
def test_a_constant_input_goes_to_zero(constant, dtype):
    x = torch.full((100_003, 1), constant, dtype=dtype)  # whose sum is rounded in float64
    for axis in (None, 1):
        normalize = data.fit_normalizer(x, axis=axis)
        assert float(normalize.std) == 1.0 and bool((normalize(x).abs() <= 1e-7 * abs(constant)).all())


def test_the_training_statistics_go_through_a_pipe(rows):
    normalize = data.fit_normalizer(rows)
    train = pipe(rows, data.map_input(normalize))
    assert isinstance(train, ArrayDataset) and torch.equal(train.arrays[0], (X - X.mean()) / X.std(correction=0))
    assert train.arrays[1] is Y and torch.equal(rows.arrays[0], X)
    assert repr(normalize) == "Normalizer(mean=float32(), std=float32())"


def test_other_datasets_are_mapped_when_asked():
    calls = []
    mapped = data.map_input(lambda x: calls.append(x) or 2 * x, [(1, "a"), (2, "b")])
    assert len(mapped) == 2 and calls == []
    assert mapped[1] == (4, "b") and calls == [2]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: data.fit_normalizer(Y), DtypeMismatch, r"got torch.int64; convert them with \.float\(\)"),
        (lambda: data.fit_normalizer(X)(Y), DtypeMismatch, "got torch.int64"),
        (lambda: data.fit_normalizer([1.0]), NotATensor, "takes a tensor, got list"),
        (lambda: data.fit_normalizer(X[:0]), InvalidArgument, r"empty or a scalar, got shape \(0, 2\)"),
        (lambda: data.fit_normalizer(X, axis=0), InvalidArgument, r"after the first, the examples: 1 to 1; got 0"),
        (lambda: data.fit_normalizer(X, axis=2), InvalidArgument, "got 2"),
        (
            lambda: data.fit_normalizer(ArrayDataset(X)),
            InvalidArgument,
            r"\(input, target\) pair, .*got float32\(10, 2\)",
        ),
        (lambda: data.map_input(torch.abs, ArrayDataset((X, Y, Y, Y))), InvalidArgument, "pair, .*got a tuple of 4"),
        (lambda: data.map_input(lambda x: x[:3], ArrayDataset((X, Y))), ShapeMismatch, "equally many rows"),
        (lambda: data.map_input(abs, [1.0])[0], InvalidArgument, "an example of the dataset must be an"),
    ],
    ids=range(10),
)
def test_what_cannot_be_normalised_or_mapped(call, error, message):
    with pytest.raises(error, match=message):
        call()


# Digits


def test_the_digits_are_all_there_once_and_always_alike():
    from sklearn.datasets import load_digits

    train, valid = data.digits()
    assert (len(train), len(valid)) == (1500, 297)
    x, y = (torch.cat(parts) for parts in zip(train.arrays, valid.arrays, strict=True))
    assert x.dtype == torch.float32 and y.dtype == torch.int64
    pixels, labels = load_digits(return_X_y=True)
    ours = sorted((*row, label) for row, label in zip((x * 16).int().tolist(), y.tolist(), strict=True))
    assert ours == sorted((*map(int, row), int(label)) for row, label in zip(pixels, labels, strict=True))
    again, _ = data.digits()
    assert tree.equal(train.arrays, again.arrays)
    assert (torch.bincount(valid.arrays[1]) > 15).all()  # as they lie, the last 297 would do; in their order, writers


def test_digits_as_images():
    flat, image = data.digits()[1], data.digits(flat=False)[1]
    assert image.arrays[0].shape == (297, 1, 8, 8)
    assert torch.equal(image.arrays[0].flatten(1), flat.arrays[0])


def test_digits_without_scikit_learn(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"pip install functrain\[examples\]"):
        data.digits()
