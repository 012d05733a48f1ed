"""Samplers and loaders: the laws of order, and that any (epoch, step) is what iterating would have reached."""

from collections import Counter
from functools import partial

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from functrain import data, random, tree
from functrain.data import ArrayDataset, Batch
from functrain.data import sampler as samplers
from functrain.data.dataset import gather
from functrain.errors import InvalidArgument, InvalidKey

KEY = random.key(7)
KNOWN = [2, 18, 82295, 427847762811, 3984071461616472705]
"""What the network makes of 3 with 2, 5, 17, 40 and 62 bits, computed with Python's integers, which cannot overflow."""
SAMPLERS = {
    "sequential": data.sequential,
    "in memory": data.shuffled,
    "bijection": partial(data.shuffled, in_memory=False),
}
SHUFFLED = ("in memory", "bijection")

kinds = st.sampled_from(sorted(SAMPLERS))
remainders = st.sampled_from(samplers.REMAINDERS)


def rows(n):
    return ArrayDataset((torch.arange(2.0 * n).reshape(n, 2), torch.arange(n)))


def epoch_of(sampler, n, epoch=0, key=KEY):
    return [samplers.indices(sampler, key, n, epoch, s).tolist() for s in range(samplers.steps_per_epoch(sampler, n))]


# Samplers


@pytest.mark.parametrize("kind", SAMPLERS)
def test_ten_by_three(kind):
    found = epoch_of(SAMPLERS[kind](batch_size=3), 10)
    assert [len(batch) for batch in found] == [3, 3, 3, 1]
    assert [len(batch) for batch in epoch_of(SAMPLERS[kind](3, "drop"), 10)] == [3, 3, 3]
    assert [len(batch) for batch in epoch_of(SAMPLERS[kind](3, "pad"), 10)] == [3, 3, 3, 3]


@given(kinds, st.integers(1, 300), st.integers(10, 70), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_every_epoch_is_a_permutation(kind, n, size, epoch):
    sampler = SAMPLERS[kind](batch_size=size)
    found = [i for batch in epoch_of(sampler, n, epoch) for i in batch]
    assert sorted(found) == list(range(n))
    dropped = [i for batch in epoch_of(attrs.evolve(sampler, remainder="drop"), n, epoch) for i in batch]
    assert dropped == found[: n // size * size]


@pytest.mark.parametrize("kind", SHUFFLED)
def test_order_differs_between_epochs_and_keys_alone(kind):
    sampler = SAMPLERS[kind](batch_size=50)
    orders = [epoch_of(sampler, 50, epoch, key)[0] for epoch in (0, 1) for key in (KEY, random.key(8))]
    assert len({tuple(order) for order in orders}) == 4
    assert epoch_of(sampler, 50)[0] == orders[0] != list(range(50))


def evenly(counts, cells):
    """Whether counts could come from cells that are equally likely: chi-square under its mean plus 8 deviations."""
    expected = sum(counts) / cells
    chi_square = sum((count - expected) ** 2 for count in counts) / expected + (cells - len(counts)) * expected
    return chi_square < (cells - 1) + 8 * (2 * (cells - 1)) ** 0.5


@pytest.mark.parametrize("n", [2, 3, 4, 9])
def test_the_bijection_puts_each_example_everywhere_alike(n):
    orders = [samplers.scatter(KEY, n, epoch, 0, n).tolist() for epoch in range(300)]
    for position in range(n):
        assert evenly(Counter(order[position] for order in orders).values(), n)
    if n <= 4:  # and each permutation of a few comes up as often as the others
        assert evenly(Counter(map(tuple, orders)).values(), [1, 1, 2, 6, 24][n])


def test_the_bijection_has_no_pattern_between_neighbours():
    order = samplers.scatter(KEY, 20_000, 0, 0, 20_000).double()
    for lag in (1, 2, 64):
        pair = torch.stack([order[:-lag], order[lag:]])
        assert abs(float(torch.corrcoef(pair)[0, 1])) < 4 / 20_000**0.5
    assert abs(float(torch.corrcoef(torch.stack([order, torch.arange(20_000).double()]))[0, 1])) < 4 / 20_000**0.5


def test_the_bijection_of_a_huge_dataset_needs_no_memory():
    n = 10**15 + 3
    part = samplers.scatter(KEY, n, 3, n - 1000, n)
    assert len(set(part.tolist())) == 1000 and int(part.min()) >= 0 and int(part.max()) < n
    assert torch.equal(part[500:], samplers.scatter(KEY, n, 3, n - 500, n))


def test_known_answers_of_the_network():
    words = [[2**32 - 1 - 7 * r, 12345 * r] for r in range(samplers.ROUNDS)]
    found = [int(samplers._feistel(torch.tensor([3]), bits, words)) for bits in (2, 5, 17, 40, 62)]
    assert found == KNOWN


def test_sequential_needs_no_key():
    assert samplers.indices(data.sequential(2), None, 4, 1, 1).tolist() == [2, 3]
    with pytest.raises(InvalidArgument, match="a shuffled sampler needs a key"):
        samplers.indices(data.shuffled(2), None, 4, 1, 1)
    with pytest.raises(InvalidKey):
        samplers.indices(data.shuffled(2), 42, 4, 1, 1)


@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("size", [0, -3, 2.0, "64", None, True])
def test_batch_sizes_that_are_none(make, size):
    with pytest.raises(InvalidArgument, match=f"batch_size must be a whole number of at least 1, got {size!r}"):
        make(batch_size=size)


def test_unknown_remainder():
    with pytest.raises(InvalidArgument, match="remainder must be 'keep', 'drop' or 'pad', got 'truncate'"):
        data.shuffled(2, remainder="truncate")


@pytest.mark.parametrize(
    ("epoch", "step", "message"),
    [(0, 4, "steps 4 to 5 are not in an epoch of 4 steps"), (-1, 0, "epoch must be"), (0, -1, "start must be")],
)
def test_steps_that_are_in_no_epoch(epoch, step, message):
    with pytest.raises(InvalidArgument, match=message):
        samplers.indices(data.sequential(3), None, 10, epoch, step)


def test_samplers_are_frozen_and_print():
    sampler = data.shuffled(64, in_memory=False)
    assert repr(sampler) == "shuffled(batch_size=64, in_memory=False)"
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        sampler.batch_size = 3


# Loaders


@given(kinds, remainders, st.integers(1, 60), st.integers(1, 20), st.integers(0, 3), st.data())
@settings(max_examples=50, deadline=None)
def test_any_step_is_what_iterating_reaches(kind, remainder, n, size, epoch, draw):
    if remainder == "drop":
        size = min(size, n)
    loader = data.loader(rows(n), SAMPLERS[kind](size, remainder))
    everything = list(data.batches(loader, KEY, epoch))
    assert len(everything) == len(loader)
    start = draw.draw(st.integers(0, len(loader)))
    assert tree.equal(list(data.batches(loader, KEY, epoch, start)), everything[start:])
    for step in range(start, len(loader)):
        index = samplers.indices(loader.sampler, KEY, n, epoch, step)
        weight = samplers.weights(loader.sampler, n, step)
        assert tree.equal(everything[step], Batch(*loader.dataset[index], weight))


@given(kinds, remainders, st.integers(1, 60), st.integers(1, 20), st.data())
@settings(max_examples=50, deadline=None)
def test_an_index_block_names_the_rows_of_the_batches(kind, remainder, n, size, draw):
    if remainder == "drop":
        size = min(size, n)
    loader = data.loader(rows(n), SAMPLERS[kind](size, remainder))
    start = draw.draw(st.integers(0, len(loader)))
    stop = draw.draw(st.integers(start, len(loader)))
    block, weights = data.index_block(loader, KEY, 2, start, stop)
    assert block.dtype == torch.int64 and block.shape[0] == stop - start
    assert (weights is None) == (remainder == "drop" or n % block.shape[1] == 0)
    found = list(data.batches(loader, KEY, 2, start))[: stop - start]
    for i, batch in enumerate(found):
        counts = torch.ones(block.shape[1], dtype=torch.bool) if weights is None else weights[i] > 0
        real = torch.ones(len(batch.target), dtype=torch.bool) if batch.weight is None else batch.weight > 0
        assert torch.equal(block[i][counts], batch.target[real])
        if data.is_resident(loader) and remainder != "keep":  # whose last batch is short, and has no weights
            assert torch.equal(block[i], batch.target)
            assert (weights is None) == (batch.weight is None)
            assert weights is None or torch.equal(weights[i], batch.weight)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_other_datasets_give_the_same_batches_as_arrays(kind):
    arrays = rows(10)
    listed = [(arrays.arrays[0][i], i) for i in range(10)]
    for remainder in samplers.REMAINDERS:
        sampler = SAMPLERS[kind](4, remainder)
        plain, slow = data.loader(arrays, sampler), data.loader(listed, sampler)
        assert tree.equal(list(data.batches(plain, KEY, 1)), list(data.batches(slow, KEY, 1)))
        assert not data.is_resident(slow)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_inputs_may_be_trees(kind):
    dataset = ArrayDataset(({"a": torch.arange(5), "b": torch.arange(5) * 2}, torch.arange(5)))
    for batch in data.batches(data.loader(dataset, SAMPLERS[kind](2, "pad")), KEY):
        assert torch.equal(batch.input["a"], batch.target) and torch.equal(batch.input["b"], 2 * batch.target)
        assert batch.weight.shape == (2,)


@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("remainder", samplers.REMAINDERS)
@pytest.mark.parametrize("nbytes", [1, 200, 1 << 20])
def test_how_many_batches_are_gathered_at_once_does_not_show(monkeypatch, nbytes, remainder, start):
    monkeypatch.setattr("functrain.data.loading.GATHERED", nbytes)
    tensors = {"x": torch.randn(45, 2), "empty": torch.zeros(45, 0)}, torch.arange(45)
    loader = data.loader(ArrayDataset(tensors), data.shuffled(4, remainder))
    found = list(data.batches(loader, KEY, 2, start))
    assert len(found) == len(loader) - start
    for step, batch in enumerate(found, start):
        index = samplers.indices(loader.sampler, KEY, 45, 2, step)
        expected = gather(tensors, index)
        assert tree.equal((batch.input, batch.target), expected)


@pytest.mark.parametrize("size", [3, 16])
def test_batches_have_the_same_last_bits_from_any_start(size):
    tensors, weight = (torch.randn(100, 5), torch.randn(100, 1)), torch.randn(10, 5)
    loader = data.loader(ArrayDataset(tensors), data.shuffled(size))
    expected = [batch.input @ weight.T for batch in data.batches(loader, KEY)]
    for start in range(len(loader)):
        for found, wanted in zip(data.batches(loader, KEY, 0, start), expected[start:], strict=True):
            assert found.input.data_ptr() % 64 == found.target.data_ptr() % 64 == 0
            assert torch.equal(found.input @ weight.T, wanted)


def test_sparse_arrays_are_gathered():
    dense = torch.eye(6)
    with torch.sparse.check_sparse_tensor_invariants():
        sparse = dense.to_sparse()
    batches = [data.batches(data.loader(ArrayDataset((x, x)), data.shuffled(4)), KEY) for x in (sparse, dense)]
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one.input.to_dense(), other.input) and torch.equal(one.target.to_dense(), other.target)


def test_a_dataset_of_nothing_but_empty_rows_is_gathered():
    loader = data.loader(ArrayDataset((torch.zeros(6, 0), torch.zeros(6, 0))), data.shuffled(4))
    assert [batch.input.shape for batch in data.batches(loader, KEY)] == [(4, 0), (2, 0)]


def test_padding_counts_every_example_once():
    loader = data.loader(rows(10), data.shuffled(4, "pad"))
    found = list(data.batches(loader, KEY))
    assert [batch.weight.tolist() for batch in found] == [[1.0] * 4, [1.0] * 4, [1.0, 1.0, 0.0, 0.0]]
    seen = torch.cat([batch.target[batch.weight > 0] for batch in found])
    assert sorted(seen.tolist()) == list(range(10))
    assert found[2].target[2] == found[2].target[3] == found[2].target[1]  # a real row, repeated


def test_no_weights_where_nothing_is_ever_padded():
    assert all(b.weight is None for b in data.batches(data.loader(rows(8), data.sequential(4, "pad"))))


def test_an_order_in_memory_is_computed_once_an_epoch():
    calls = []

    def order(key, n, epoch, start, stop):
        calls.append((start, stop))
        return torch.arange(n)[start:stop]

    loader = data.loader(rows(100), data.Sampler(order, 7, whole=True))
    assert len(list(data.batches(loader, KEY, start=3))) == 12 and calls == [(21, 100)]


def test_an_order_of_any_size_is_computed_in_parts(monkeypatch):
    monkeypatch.setattr("functrain.data.loading.CHUNK", 20)
    whole = data.loader(rows(100), data.shuffled(7, in_memory=False))
    parts = torch.cat([batch.target for batch in data.batches(whole, KEY)])
    assert torch.equal(parts, samplers.scatter(KEY, 100, 0, 0, 100))


def test_a_transform_gets_a_key_of_its_own_for_each_batch():
    def jitter(key, batch):
        return attrs.evolve(batch, input=batch.input + key.sum())

    loader = data.loader(rows(12), data.sequential(4), transform=jitter)
    plain = data.loader(rows(12), data.sequential(4))
    shift = [
        [a.input - b.input for a, b in zip(data.batches(loader, KEY, e), data.batches(plain), strict=True)]
        for e in (0, 1)
    ]
    assert len({float(s.flatten()[0]) for epoch in shift for s in epoch}) == 6
    assert tree.equal(list(data.batches(loader, KEY, 1, start=2)), list(data.batches(loader, KEY, 1))[2:])
    assert not data.is_resident(loader)
    with pytest.raises(InvalidArgument, match="a loader with a transform needs a key"):
        data.batches(loader)


def test_sequences_are_padded_by_collate():
    examples = [(torch.arange(1, n + 1), n) for n in (3, 1, 2)]
    loader = data.loader(examples, data.sequential(2), collate=partial(data.pad, length=4))
    first, last = data.batches(loader)
    assert first.input.values.tolist() == [[1, 2, 3, 0], [1, 0, 0, 0]] and first.target.tolist() == [3, 1]
    assert last.input.mask.tolist() == [[True, True, False, False]]


def test_a_collate_of_ones_own_sees_array_examples():
    dataset = ArrayDataset({"x": torch.arange(3.0), "y": torch.arange(3)})
    loader = data.loader(
        dataset,
        data.sequential(2),
        collate=lambda es: (torch.stack([e["x"] for e in es]), torch.stack([e["y"] for e in es])),
    )
    assert data.one_batch(loader).input.tolist() == [0.0, 1.0] and not data.is_resident(loader)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: data.loader((torch.zeros(4, 2), torch.zeros(4)), data.sequential(2)),
            r"an example of the dataset must be an \(input, target\) pair, .* got float32\(4, 2\); put tensors",
        ),
        (lambda: data.loader(torch.zeros(4, 2), data.sequential(2)), r"Batch, got float32\(2,\); put tensors in"),
        (lambda: data.loader([], data.sequential(2)), "the dataset is empty; a loader needs at least one example"),
        (
            lambda: data.loader(iter([1]), data.sequential(2)),
            "dataset must have __len__ and __getitem__, got list_iter",
        ),
        (lambda: data.loader(rows(3), 64), "sampler must be made by data.sequential or data.shuffled, got 64"),
        (lambda: data.loader(rows(3), data.sequential), "sampler must be made by .*got the function sequential"),
        (lambda: data.loader(rows(3), data.sequential(4, "drop")), "3 examples, fewer than one batch of 4.*drops them"),
        (lambda: data.loader(rows(3), data.sequential(2), collate="stack"), "collate must be a function, got 'stack'"),
        (lambda: data.loader(rows(3), data.sequential(2), transform=1), "transform must be a function, got 1"),
        (
            lambda: data.loader(ArrayDataset(torch.ones(3)), data.sequential(2)),
            r"an \(input, target\) pair, .*got float32",
        ),
        (lambda: data.one_batch(data.loader([1, 2], data.sequential(2))), r"example of the dataset must be an \(input"),
        (
            lambda: data.one_batch(data.loader([1, 2], data.sequential(2), collate=sum)),
            r"collate function returns must be an \(input, target\) pair, .*got int",
        ),
        (lambda: data.batches(data.loader(rows(3), data.sequential(2)), start=3), "steps 3 to 2 are not in an epoch"),
        (lambda: data.batches(data.loader(rows(3), data.sequential(2)), epoch=0.5), "epoch must be .* got 0.5"),
        (lambda: data.index_block(data.loader(rows(3), data.sequential(2)), None, 0, 0, 3), "steps 0 to 3 are not in"),
        (lambda: data.index_block(data.loader(rows(3), data.sequential(2)), None, 0, 2, 1), "steps 2 to 1 are not in"),
    ],
    ids=range(16),
)
def test_what_makes_no_loader(make, message):
    with pytest.raises(InvalidArgument, match=message):
        make()


def test_a_key_that_is_none_is_refused_at_the_call():
    with pytest.raises(InvalidKey):
        data.batches(data.loader(rows(3), data.shuffled(2)), 42)


# Pairs of loaders


def test_validation_batches_are_twice_as_large():
    train, valid = data.loaders(rows(10), rows(9), batch_size=2)
    assert [len(batch.target) for batch in data.batches(train, KEY)] == [2] * 5
    assert [batch.target.tolist() for batch in data.batches(valid)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    assert train.sampler == data.shuffled(2)
    train, valid = data.loaders(rows(11), rows(9), 2, remainder="drop")
    assert (len(train), len(valid)) == (5, 3)  # every validation example counts
    with pytest.raises(InvalidArgument, match="batch_size"):
        data.loaders(rows(3), rows(3), 0)


def test_one_batch_is_the_first():
    loader = data.loader(rows(10), data.shuffled(4))
    assert tree.equal(data.one_batch(loader, KEY), next(data.batches(loader, KEY)))
    assert tree.equal(data.one_batch(loader), data.one_batch(loader, random.key(0)))


def test_a_bunch_holds_loaders():
    pair = data.loaders(rows(10), rows(9), batch_size=2)
    bunch = data.Bunch(*pair, n_out=10)
    assert (bunch.train, bunch.valid, bunch.n_out) == (*pair, 10)
    with pytest.raises(InvalidArgument, match="n_out must be a whole number of at least 1, got 0"):
        data.Bunch(*pair, n_out=0)
    with pytest.raises(InvalidArgument, match=r"valid must be made by data.loader, got ArrayDataset"):
        data.Bunch(pair[0], rows(3), n_out=10)
