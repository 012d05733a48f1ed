"""Randomness: known answers, the same bits in every mode, distributions, independence, and the errors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import vmap
from torch.fx.experimental.proxy_tensor import make_fx

from functrain import random
from functrain.engine import jit
from functrain.engine.graph.expanding import expanded as expanded_graph
from functrain.engine.tracing.abstract_tensor import storage_of
from functrain.engine.tracing.to_graph import trace
from functrain.errors import InvalidArgument, InvalidKey, KeyReused, ShapeMismatch
from functrain.random import leaf
from functrain.random.philox import MASK, blocks, blocks_in_place, round_keys, words_of_block, words_of_blocks
from functrain.random.words import CHUNK, DRAW, FEW, FOLD, SPLIT

MILLION = 10**6

# The known answers of the reference implementation, Random123's kat_vectors.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((MASK,) * 4, (MASK,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]

word = st.integers(0, MASK)
words4 = st.tuples(word, word, word, word)
words2 = st.tuples(word, word)


def by_tensors(counter, key):
    c0, c1, c2, c3 = counter
    even, odd = blocks(torch.tensor(key), torch.tensor([c0, c2]), torch.tensor([c1, c3]))
    (w0, w2), (w1, w3) = even.tolist(), (odd & MASK).tolist()
    return w0, w1, w2, w3


def in_place(key, start, domain, n):
    words, spare = torch.full((4, n), -1), torch.full((2, n), -1)
    blocks_in_place(round_keys(torch.tensor(key)), start, domain, words, spare)
    return [tuple(column) for column in words[[0, 2, 1, 3]].T.tolist()]


# The generator


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_the_known_answers(counter, key, answer):
    assert words_of_block(counter, key) == answer
    assert by_tensors(counter, key) == answer


def test_the_first_known_answer_in_place():
    assert in_place((0, 0), 0, 0, 1) == [KNOWN[0][2]]


@given(words4, words2)
@settings(max_examples=30, deadline=None)
def test_integers_and_tensors_give_the_same_blocks(counter, key):
    assert words_of_block(counter, key) == by_tensors(counter, key)


@given(words2, st.integers(0, 2**62), word, st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_blocks_in_place_are_those_of_their_counters(key, start, domain, n):
    wanted = [words_of_block((i & MASK, 0, i >> 32, domain), key) for i in range(start, start + n)]
    assert in_place(key, start, domain, n) == wanted


@given(words2, word, st.integers(0, 70))
@settings(max_examples=30, deadline=None)
def test_wide_integers_give_the_same_blocks(key, domain, n):
    made = words_of_blocks(n, domain, key)
    assert made.shape == (n, 4) and made.dtype is torch.int64
    assert [tuple(block) for block in made.tolist()] == [words_of_block((i, 0, 0, domain), key) for i in range(n)]


def test_the_number_of_a_block_goes_on_past_32_bits():
    around = in_place((1, 2), 2**32 - 2, DRAW, 4)
    assert around == [words_of_block((i & MASK, 0, i >> 32, DRAW), (1, 2)) for i in range(2**32 - 2, 2**32 + 2)]
    assert around[2] != in_place((1, 2), 0, DRAW, 1)[0]


# What the stream of a key is: these values may never change


def test_golden_values():
    key = random.key(2**64 - 3)
    assert key.tolist() == [MASK - 2, MASK]
    assert random.bits(key, 3).tolist() == [464230211, 527024313, 334356619]
    assert random.split(key, 1).tolist() == [[3669935125, 175019808]]
    assert random.fold_in(key, 7).tolist() == [1385317675, 3500076664]
    assert random.fold_in(key, "layer", "0").tolist() == [3073741868, 4110551483]
    assert random.key(-1).tolist() == [3929560863, 3858795376]


def test_a_draw_is_the_words_of_its_blocks():
    key = random.key(3)
    made = [words_of_block((i, 0, 0, DRAW), (3, 0)) for i in range(3)]
    assert random.bits(key, 10).tolist() == [word for block in made for word in block][:10]


# An element depends on the key and its place alone

DRAWS_OF_A_SHAPE = {
    "bits": random.bits,
    "uniform": random.uniform,
    "uniform float64": lambda key, shape: random.uniform(key, shape, -1.0, 3.0, torch.float64),
    "normal": random.normal,
    "normal float64": lambda key, shape: random.normal(key, shape, torch.float64),
    "truncated_normal": random.truncated_normal,
    "truncated_normal float64": lambda key, shape: random.truncated_normal(key, shape, dtype=torch.float64),
    "bernoulli": lambda key, shape: random.bernoulli(key, 0.3, shape),
    "bernoulli tensor": lambda key, shape: random.bernoulli(key, torch.full(shape, 0.3)),
    "randint": lambda key, shape: random.randint(key, shape, -5, 10**6),
    "categorical": lambda key, shape: random.categorical(key, torch.zeros(5), shape),
    "categorical float64": lambda key, shape: random.categorical(key, torch.zeros(5, dtype=torch.float64), shape),
}


@pytest.mark.parametrize("name", DRAWS_OF_A_SHAPE)
@pytest.mark.parametrize("traced", [False, True])
def test_a_draw_begins_with_a_shorter_one(name, traced):
    f, key = DRAWS_OF_A_SHAPE[name], random.key(21)

    def draw(rows):
        run = (lambda key: f(key, (rows, 5))) if not traced else make_fx(lambda key: f(key, (rows, 5)))(key)
        return run(key)

    # Rows of 5 end within a block; 4000 words are more than Python's integers make, 70,000 more than a chunk.
    longest = draw(14_003)
    assert all(torch.equal(draw(rows), longest[:rows]) for rows in (1, 3, 7, 800, 14_001))
    assert longest[::2].unique().numel() > 1 and not torch.equal(longest[:7], longest[7:14])


# The same bits in every mode

HALF, BRAIN, DOUBLE = torch.float16, torch.bfloat16, torch.float64
THREE = torch.tensor([0.5, 0.2, 0.3]).log()
MANY = 4 * CHUNK + 5  # more than a chunk, and no multiple of anything

DRAWS = {
    "bits": lambda key: random.bits(key, (5, 3)),
    "bits of one": lambda key: random.bits(key),
    "bits of none": lambda key: random.bits(key, (0, 3)),
    "bits of many": lambda key: random.bits(key, MANY),
    "uniform": lambda key: random.uniform(key, (101,)),
    "uniform float64": lambda key: random.uniform(key, (101,), dtype=DOUBLE),
    "uniform float16": lambda key: random.uniform(key, 101, dtype=HALF),
    "uniform bfloat16 between": lambda key: random.uniform(key, 101, -3, 1, BRAIN),
    "uniform between": lambda key: random.uniform(key, (MANY,), -3, 2.5),
    "uniform between tensors": lambda key: random.uniform(key, (9, 2), key[0] / 2.0**32, key / 2.0**32 + 1.5),
    "normal": lambda key: random.normal(key, (101,)),
    "normal of many": lambda key: random.normal(key, (MANY,)),
    "normal float64": lambda key: random.normal(key, (7, 11), DOUBLE),
    "normal float16": lambda key: random.normal(key, 101, HALF),
    "truncated_normal": lambda key: random.truncated_normal(key, (MANY,)),
    "truncated_normal float64": lambda key: random.truncated_normal(key, (101,), 5.0, 7.0, DOUBLE),
    "truncated_normal tensor": lambda key: random.truncated_normal(key, (101,), -1.0 - key[0] / 2.0**32, 1.0),
    "bernoulli": lambda key: random.bernoulli(key, 0.3, (MANY,)),
    "bernoulli tensor": lambda key: random.bernoulli(key, key[0] / 2.0**32, (101,)),
    "bernoulli tensors": lambda key: random.bernoulli(key, key / 2.0**32),
    "randint": lambda key: random.randint(key, (MANY,), -5, 9),
    "randint wide": lambda key: random.randint(key, (101,), -(2**63), 2**63 - 1),
    "randint tensor": lambda key: random.randint(key, (101,), -5, key[0]),
    "permutation": lambda key: random.permutation(key, 1001),
    "permutation of rows": lambda key: random.permutation(key, key.expand(5, 2) + key.new_ones(5, 2).cumsum(0)),
    "categorical": lambda key: random.categorical(key, key.float() / 2.0**32),
    "categorical of many": lambda key: random.categorical(key, key.float() / 2.0**32, MANY // 2),
    "categorical float64": lambda key: random.categorical(key, (key.double() / 2.0**32).expand(5, 2).T, (4, 5), axis=0),
    "split": lambda key: random.split(key, 3),
    "split into many": lambda key: random.split(key, FEW + 9),
    "fold_in": lambda key: random.fold_in(key, 3, "a", -5, "b"),
    "fold_in names": lambda key: random.fold_in(key, "a", "b"),
    "fold_in tensor": lambda key: random.fold_in(key, "a", key[1] - 2**31),
    "fold_in tensors": lambda key: random.fold_in(key, key),
}
MODES = {
    "vmapped": lambda f, graph, keys: vmap(f)(keys),
    "vmapped twice": lambda f, graph, keys: vmap(vmap(f))(keys[:, None])[:, 0],
    "traced with fake tensors": lambda f, graph, keys: torch.stack([graph(key) for key in keys]),
    "traced, then vmapped": lambda f, graph, keys: vmap(graph)(keys),
    "jitted": lambda f, graph, keys: torch.stack([jit(f)(key) for key in keys]),
    "vmapped, then traced": lambda f, graph, keys: make_fx(vmap(f))(keys)(keys),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_key_gives_the_same_bits_in_every_mode(name):
    f, keys = DRAWS[name], random.split(random.key(11), 3)
    before = keys.clone()
    wanted = torch.stack([f(key) for key in keys])
    graph = make_fx(f, tracing_mode="fake")(keys[0])
    different = [mode for mode, run in MODES.items() if not torch.equal(run(f, graph, keys), wanted)]
    assert different == []
    assert torch.equal(keys, before)
    assert torch.equal(f(keys[0]), wanted[0])
    assert wanted.numel() < 10 or not torch.equal(wanted[0], wanted[1])


@pytest.mark.parametrize("count", [1, 4, 4 * FEW, 4 * FEW + 1, 4 * CHUNK, 4 * CHUNK + 1])
def test_the_way_of_drawing_changes_with_the_size_and_the_bits_do_not(count):
    key = random.key(5)
    for draw in (random.bits, random.uniform, random.normal):
        assert torch.equal(draw(key, (count,)), vmap(lambda key, draw=draw: draw(key, (count,)))(key[None])[0])


def test_a_number_and_a_tensor_mean_the_same():
    key, as_tensor = random.key(1), torch.tensor
    pairs = [
        (random.uniform(key, 99, 0.1, 0.7), random.uniform(key, 99, as_tensor(0.1), as_tensor(0.7))),
        (random.truncated_normal(key, 99, 0.1, 0.7), random.truncated_normal(key, 99, as_tensor(0.1), 0.7)),
        (random.bernoulli(key, 0.1, 9999), random.bernoulli(key, torch.full((9999,), 0.1))),
        (random.randint(key, 99, -3, 10**6), random.randint(key, 99, as_tensor(-3), as_tensor(10**6))),
        (random.randint(key, 99, 0, 2**31), random.randint(key, 99, as_tensor(0), 2**31)),
    ]
    assert [i for i, (number, tensor) in enumerate(pairs) if not torch.equal(number, tensor)] == []


def test_bernoulli_is_uniform_below_p():
    key = random.key(8)
    for p in (0.0, 1e-7, 0.1, 0.5, 1 / 3, 1.0):
        wanted = random.uniform(key, 9999) < torch.tensor(p)
        assert torch.equal(random.bernoulli(key, p, 9999), wanted)


# One operation in a trace


def operations(graph):
    return [node.target for node in graph.graph.nodes if node.op == "call_function"]


LEAVES = {
    "words": (leaf.drawn, (random.key(7), (5, 3))),
    "words of many": (leaf.drawn, (random.key(7), (MANY,))),
    "words of keys": (leaf.drawn, (random.split(random.key(7), 3), (2, 3))),
    "split": (leaf.children, (random.key(7), 3)),
    "split of keys": (leaf.children, (random.split(random.key(7), 2), FEW + 1)),
    "fold": (leaf.child, (random.key(7), -3, 11, FOLD)),
    "fold of a tensor": (leaf.child, (random.key(7), torch.tensor(-3), 11, FOLD)),
    "fold of tensors": (leaf.child, (random.split(random.key(7), 3), torch.arange(6).view(2, 3), 11, FOLD)),
}


@pytest.mark.parametrize("name", LEAVES)
def test_a_trace_records_one_operation_which_expands_to_the_same_bits(name):
    f, arguments = LEAVES[name]
    where = [k for k, a in enumerate(arguments) if isinstance(a, torch.Tensor)]
    tensors = [arguments[k] for k in where]

    def run(*given):
        return f(*(dict(zip(where, given, strict=True)).get(k, a) for k, a in enumerate(arguments)))

    graph = make_fx(run, tracing_mode="fake")(*tensors)
    op, *others = operations(graph)
    assert op in leaf.KERNELS and others == []
    wanted = run(*tensors)
    assert torch.equal(leaf.PURE[op](*arguments), wanted) and torch.equal(leaf.KERNELS[op](*arguments), wanted)
    torch.library.opcheck(op, arguments, test_utils=("test_schema", "test_faketensor"))
    found = trace(lambda *given: [run(*given)], tensors)
    assert operations(found.gm) == [op]
    expanded = expanded_graph(found.gm)
    assert not leaf.PURE.keys() & set(operations(expanded))
    assert torch.equal(expanded(*tensors)[0], wanted)


def test_expanded_operations_share_no_memory():
    def twice(a, b):
        return [random.uniform(a, (8,)), random.uniform(b, (8,))]

    keys = random.split(random.key(0))
    graph = expanded_graph(trace(twice, list(keys)).gm)
    first, second = next(n for n in reversed(graph.graph.nodes) if n.op == "output").args[0]
    memory = [storage_of(value.meta["val"]) for value in (first, second)]
    assert memory[0] != memory[1]
    assert all(map(torch.equal, graph(*keys), twice(*keys)))


def test_only_the_operations_that_are_asked_for_are_expanded():
    found = trace(lambda key: [random.bits(random.fold_in(key, 1), 3)], [random.key(0)])
    folds = [op for op in leaf.PURE if "fold" in op._schema.name]
    graph = expanded_graph(found.gm, lambda node: node.target in folds)
    found = leaf.PURE.keys() & set(operations(graph))
    assert [op._schema.name for op in found] == ["functrain::philox_words"]


def test_one_operation_is_recorded_inside_grad_and_none_inside_vmap():
    key, x = random.key(0), torch.ones(3)

    def loss(x, key):
        return (x * random.uniform(random.fold_in(key, "layer"), (3,))).sum()

    graph = make_fx(torch.func.grad(loss), tracing_mode="fake")(x, key)
    assert len(leaf.KERNELS.keys() & set(operations(graph))) == 2
    assert torch.equal(graph(x, key), random.uniform(random.fold_in(key, "layer"), (3,)))
    assert torch.equal(torch.func.grad(loss)(x, key), graph(x, key))
    mapped = make_fx(vmap(loss, (None, 0)), tracing_mode="fake")(x, key[None])
    assert not leaf.KERNELS.keys() & set(operations(mapped))


@pytest.mark.parametrize("dims", [(0, 0), (1, None), (None, 0), (0, 1), (None, 1)])
@pytest.mark.parametrize("shape", [(), (4,)])
def test_a_traced_fold_maps_over_keys_and_numbers(dims, shape):
    keys, numbers = random.split(random.key(0), 3), torch.arange(3 * 4).view(3, 4)
    numbers = numbers if shape else numbers[:, 0]
    keys = {None: keys[0], 0: keys, 1: keys.T}[dims[0]]
    numbers = {None: numbers[0], 0: numbers, 1: numbers.T if shape else numbers}[dims[1]]
    dims = (dims[0], min(dims[1], numbers.dim() - 1) if dims[1] is not None else None)
    one = [t if d is None else t.select(d, 0) for t, d in zip((keys, numbers), dims, strict=True)]
    graph = make_fx(random.fold_in, tracing_mode="fake")(*one)
    assert torch.equal(vmap(graph, dims)(keys, numbers), vmap(random.fold_in, dims)(keys, numbers))


# Keys


@given(st.integers(0, 2**64 - 1))
@settings(max_examples=20, deadline=None)
def test_a_seed_of_64_bits_is_the_key(seed):
    low, high = random.key(seed).tolist()
    assert low + (high << 32) == seed


def test_any_integer_is_a_seed():
    seeds = [0, 1, -1, 2**64 - 1, 2**64, 2**64 + 1, -(2**64), 10**100, -(10**100)]
    assert len({tuple(random.key(seed).tolist()) for seed in seeds}) == len(seeds)


@pytest.mark.parametrize("seed", [True, 1.0, "0", None, torch.tensor(3)])
def test_a_seed_that_is_no_integer(seed):
    with pytest.raises(InvalidArgument, match="a seed must be an integer"):
        random.key(seed)


def test_derived_keys_are_64_bits_that_fit_the_generator():
    made = random.split(random.key(0), 1000)
    assert made.shape == (1000, 2) and made.dtype is torch.int64
    assert made.min() >= 0 and made.max() <= MASK and made.is_contiguous()


def test_many_derived_keys_are_all_different():
    key, n = random.key(0), 100_000
    made = torch.cat([random.split(key, n), random.fold_in(key, torch.arange(n)), random.split(random.key(1), n)])
    assert made.unique(dim=0).shape[0] == 3 * n


def test_more_keys_begin_with_the_fewer():
    key = random.key(4)
    assert torch.equal(random.split(key, 2 * FEW)[:3], random.split(key, 3))


def test_keys_of_many_keys():
    keys = random.split(random.key(0), 6).view(2, 3, 2)
    assert torch.equal(random.split(keys, 4)[1, 2], random.split(keys[1, 2], 4))
    assert torch.equal(random.fold_in(keys, 5)[1, 2], random.fold_in(keys[1, 2], 5))
    assert torch.equal(random.fold_in(keys, torch.arange(3))[1, 2], random.fold_in(keys[1, 2], 2))
    assert torch.equal(random.fold_in(keys[0, 0], torch.arange(6).view(2, 3))[1, 2], random.fold_in(keys[0, 0], 5))


numbers = st.integers(-(2**63), 2**63 - 1)
data = st.lists(st.one_of(numbers, st.text(max_size=3)), max_size=4).map(tuple)


@given(data, data)
@settings(max_examples=60, deadline=None)
def test_other_data_give_other_keys(a, b):
    key = random.key(9)
    assert torch.equal(random.fold_in(key, *a), random.fold_in(key, *b)) == (a == b)


@given(data, numbers)
@settings(max_examples=30, deadline=None)
def test_a_further_number_is_a_further_fold(a, b):
    key, first = random.key(9), (*a, 0)
    assert torch.equal(random.fold_in(key, *first, b), random.fold_in(random.fold_in(key, *first), b))


@given(numbers)
@settings(max_examples=30, deadline=None)
def test_a_number_folds_in_the_same_as_int_and_as_tensor(number):
    key = random.key(9)
    wanted = random.fold_in(key, number)
    assert torch.equal(random.fold_in(key, torch.tensor(number)), wanted)
    assert torch.equal(vmap(lambda n: random.fold_in(key, n))(torch.tensor([number]))[0], wanted)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8, torch.uint8])
def test_the_dtype_of_a_number_to_fold_in_does_not_matter(dtype):
    number = torch.tensor(100, dtype=dtype)
    assert torch.equal(random.fold_in(random.key(0), number), random.fold_in(random.key(0), 100))


def test_names_do_not_run_into_each_other():
    key = random.key(0)
    data = [("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("", "abc"), (0, "abc"), ("abc", 0), ("1:a",), ("a", 1)]
    assert torch.stack([random.fold_in(key, *d) for d in data]).unique(dim=0).shape[0] == len(data)


def test_nothing_folded_in_is_the_key_itself():
    key = random.key(0)
    assert random.fold_in(key) is key


def test_the_domains_are_apart():
    assert len({FOLD >> 28, SPLIT >> 28, DRAW >> 28}) == 3
    key, hashes = random.key(0), range(1000)
    assert all(random.keys._hashed((str(i),))[1] >> 28 == FOLD >> 28 for i in hashes)
    drawn = random.bits(key, (1000, 4))[:, ::2].tolist()
    folded = random.fold_in(key, torch.arange(1000)).tolist()
    made = random.split(key, 1000).tolist()
    assert len({tuple(pair) for pair in drawn + folded + made}) == 3000


@pytest.mark.parametrize(
    ("bad", "got"),
    [
        (0, "got 0;"),
        (torch.tensor([1, 2], dtype=torch.int32), r"torch.int32 of shape \(2,\)"),
        (torch.tensor([1, 2, 3]), r"torch.int64 of shape \(3,\)"),
        (torch.tensor(1), r"of shape \(\)"),
        (None, "None"),
    ],
)
def test_a_key_that_is_no_key(bad, got):
    users = [random.check_key, random.split, random.bits, random.uniform, random.normal, lambda k: random.fold_in(k, 1)]
    users += [lambda k: random.permutation(k, 3), lambda k: random.categorical(k, THREE)]
    for user in users:
        with pytest.raises(
            InvalidKey, match=rf"int64 tensor of shape \(\.\.\., 2\).*{got}.*random.key\(seed\) makes one|{got}"
        ):
            user(bad)


def test_a_draw_takes_one_key():
    with pytest.raises(InvalidKey, match=r"one random key of shape \(2,\).*\(3, 2\).*engine.vmap"):
        random.uniform(random.split(random.key(0), 3))


@pytest.mark.parametrize("words", [[-1, 0], [0, 2**32]])
def test_words_that_no_key_has(words):
    for user in (random.split, random.bits, lambda key: random.fold_in(key, 1)):
        with pytest.raises(InvalidKey, match="must be from 0 to 2"):
            user(torch.tensor(words))


@pytest.mark.parametrize("n", [-1, 2.0, True, None])
def test_split_into_no_number_of_keys(n):
    with pytest.raises(InvalidArgument, match="n must be the number of keys"):
        random.split(random.key(0), n)


@pytest.mark.parametrize("datum", [True, 1.5, None, torch.tensor(1.0), torch.tensor(True), b"name"])
def test_what_cannot_be_folded_in(datum):
    with pytest.raises(InvalidArgument, match="must be an integer, a tensor of integers or a string"):
        random.fold_in(random.key(0), datum)


def test_a_number_too_large_to_fold_in():
    with pytest.raises(InvalidArgument, match=r"must fit 64 bits with sign.*fold in its str"):
        random.fold_in(random.key(0), 2**63)


def test_numbers_that_do_not_fit_the_keys():
    with pytest.raises(ShapeMismatch, match=r"\(3,\).*\(4,\).*must broadcast"):
        random.fold_in(random.split(random.key(0), 3), torch.arange(4))


# Distributions, over a million draws of fixed keys


def kolmogorov_smirnov(draws, distribution):
    """The largest distance between two distribution functions, times the root of the number of draws.

    Above 1.95 once in a thousand keys.
    """
    n = draws.numel()
    ordered = distribution(draws.double().sort().values)
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    return math.sqrt(n) * max((ordered - steps[:-1]).abs().max(), (steps[1:] - ordered).abs().max()).item()


def chi_square(counts, probabilities):
    """The statistic, in standard deviations from its mean. Beyond 4 once in ten thousand keys or so."""
    expected = probabilities.double() * counts.sum()
    statistic = ((counts - expected) ** 2 / expected).sum().item()
    return (statistic - (counts.numel() - 1)) / math.sqrt(2 * (counts.numel() - 1))


def assert_moments(draws, mean, variance, fourth):
    """Mean and variance within four standard errors; `fourth` is the fourth central moment."""
    draws, n = draws.double(), draws.numel()
    assert abs(draws.mean().item() - mean) < 4 * math.sqrt(variance / n)
    assert abs(draws.var().item() - variance) < 4 * math.sqrt((fourth - variance**2) / n)


def normal_cdf(x):
    return 0.5 * torch.erfc(-x / math.sqrt(2))


def test_each_bit_is_fair_and_words_are_independent_of_the_next():
    words = random.bits(random.key(1), MILLION)
    for bit in range(32):
        ones = (words >> bit) & 1
        assert abs(ones.float().mean().item() - 0.5) < 4 * 0.5 / 1000
        assert abs((ones[1:] ^ ones[:-1]).float().mean().item() - 0.5) < 4 * 0.5 / 1000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_is_uniform(dtype):
    draws = random.uniform(random.key(2), MILLION, dtype=dtype)
    assert draws.dtype is dtype and draws.min() >= 0 and draws.max() < 1
    assert_moments(draws, 1 / 2, 1 / 12, 1 / 80)
    assert kolmogorov_smirnov(draws, lambda x: x) < 1.95


@pytest.mark.parametrize(("dtype", "kept"), [(HALF, 11), (BRAIN, 8)])
def test_uniform_of_16_bits_has_all_values_of_its_grid(dtype, kept):
    draws = random.uniform(random.key(3), MILLION, dtype=dtype)
    cells = (draws.double() * 2**kept).long()
    assert torch.equal(cells.double() / 2**kept, draws.double())
    counts = cells.bincount(minlength=2**kept)
    assert counts.numel() == 2**kept and abs(chi_square(counts, torch.full_like(counts, 1) / 2**kept)) < 4


def test_uniform_between():
    draws = random.uniform(random.key(4), MILLION, -3.0, 5.0)
    assert kolmogorov_smirnov(draws, lambda x: (x + 3) / 8) < 1.95


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE, HALF, BRAIN])
@pytest.mark.parametrize(("low", "high"), [(1.0, 2.0), (-3.0, -2.0), (0.1, 0.3), (100.0, 101.0)])
def test_uniform_never_reaches_high(low, high, dtype):
    draws = random.uniform(random.key(5), 50_000, low, high, dtype)
    low, high = torch.tensor(low, dtype=dtype), torch.tensor(high, dtype=dtype)
    assert draws.dtype is dtype and draws.min() >= low and draws.max() < high


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_is_normal(dtype):
    draws = random.normal(random.key(6), MILLION, dtype)
    assert draws.dtype is dtype
    assert_moments(draws, 0, 1, 3)
    assert kolmogorov_smirnov(draws, normal_cdf) < 1.95


@pytest.mark.parametrize(("dtype", "largest"), [(torch.float32, 5.42), (DOUBLE, 8.29), (HALF, 5.42), (BRAIN, 5.41)])
def test_the_largest_normal_draws_are_finite(dtype, largest):
    # The extreme words, through the same function that finishes a draw.
    extremes = torch.tensor([0, MASK])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random.stream, "few", lambda key, count: extremes.repeat_interleave(count // 2))
        found = random.normal(random.key(0), 2, dtype).tolist()
    assert found[0] == -found[1] and abs(found[0]) == pytest.approx(largest, abs=0.01)


@pytest.mark.parametrize(
    ("low", "high"), [(-2.0, 2.0), (-math.inf, math.inf), (1.0, 3.0), (-0.1, 0.2), (6.0, 6.5), (-9.0, -7.0)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_truncated_normal_is_normal_between_its_limits(low, high, dtype):
    draws = random.truncated_normal(random.key(7), MILLION // 4, low, high, dtype)
    assert draws.dtype is dtype and draws.min() >= low and draws.max() < high and torch.isfinite(draws).all()
    sign = -1 if low > 0 else 1  # the lower tail, where probabilities have digits to tell them apart
    ends = normal_cdf(torch.tensor([sign * low, sign * high], dtype=DOUBLE).sort().values)
    assert kolmogorov_smirnov(sign * draws, lambda x: (normal_cdf(x) - ends[0]) / (ends[1] - ends[0])) < 1.95


@pytest.mark.parametrize("dtype", [HALF, BRAIN])
def test_truncated_normal_of_16_bits_keeps_to_its_limits(dtype):
    draws = random.truncated_normal(random.key(8), 50_000, -1.0, 1.0, dtype)
    assert draws.dtype is dtype and draws.min() >= -1 and draws.max() < 1


@pytest.mark.parametrize("p", [0.0, 1e-3, 0.3, 0.5, 1.0])
def test_bernoulli_is_true_with_probability_p(p):
    share = random.bernoulli(random.key(9), p, MILLION).double().mean().item()
    assert abs(share - p) <= 4 * math.sqrt(p * (1 - p) / MILLION)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 2), (-3, 4), (5, 6), (0, 1000), (2**40, 2**40 + 10), (-(2**63), -(2**63) + 7)]
)
def test_randint_is_uniform(low, high):
    draws = random.randint(random.key(10), MILLION, low, high) - low
    assert draws.dtype is torch.int64 and draws.min() >= 0 and draws.max() < high - low
    counts = draws.bincount(minlength=high - low)
    assert high - low == 1 or abs(chi_square(counts, torch.full_like(counts, 1) / (high - low))) < 4


@pytest.mark.parametrize(("low", "high"), [(0, 3 * 2**61), (-(2**63), 2**63 - 1), (-(2**40), 2**33 + 12345)])
def test_randint_over_a_wide_range(low, high):
    draws = random.randint(random.key(11), 100_000, low, high)
    assert draws.min() >= low and draws.max() < high
    assert kolmogorov_smirnov(draws, lambda x: (x - low) / (high - low)) < 1.95


@given(word, word, st.integers(1, 2**64 - 1))
@settings(max_examples=50, deadline=None)
def test_randint_multiplies_exactly(high, low, size):
    product = random.choices._multiply_high(
        torch.tensor(high), torch.tensor(low), size if size <= 2**31 else wrap(size)
    )
    assert product.item() % 2**64 == ((high << 32 | low) * size) >> 64


def wrap(number):
    return torch.tensor(number - 2**64 if number >= 2**63 else number)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 1000])
def test_a_permutation_holds_each_once(n):
    assert torch.equal(random.permutation(random.key(12), n).sort().values, torch.arange(n))


def test_all_permutations_are_equally_likely():
    orders = vmap(lambda key: random.permutation(key, 4))(random.split(random.key(13), 48_000))
    counts = (orders * torch.tensor([64, 16, 4, 1])).sum(1).bincount()
    counts = counts[counts > 0]
    assert counts.numel() == 24 and abs(chi_square(counts, torch.ones(24) / 24)) < 4


def test_a_permutation_of_rows_keeps_rows():
    rows = torch.arange(20.0).view(10, 2)
    key = random.key(14)
    assert torch.equal(random.permutation(key, rows), rows[random.permutation(key, 10)])


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_categorical_has_the_probabilities_of_softmax(dtype):
    logits = torch.tensor([2.0, -math.inf, 0.0, -5.0, 1.0], dtype=dtype)
    counts = random.categorical(random.key(15), logits, MILLION // 2).bincount(minlength=5)
    there = torch.tensor([0, 2, 3, 4])
    assert counts[1] == 0 and abs(chi_square(counts[there], logits.softmax(0)[there])) < 4


def test_categorical_shapes_and_axes():
    logits = random.normal(random.key(16), (3, 4, 5))
    key = random.key(17)
    assert random.categorical(key, logits).shape == (3, 4)
    assert random.categorical(key, logits, axis=0).shape == (4, 5)
    assert random.categorical(key, logits, (7, 3, 4)).shape == (7, 3, 4)
    assert torch.equal(random.categorical(key, logits, axis=1), random.categorical(key, logits.movedim(1, -1)))
    certain = torch.full((3, 4), -math.inf).index_put((torch.arange(3), torch.tensor([2, 0, 3])), torch.zeros(3))
    assert random.categorical(key, certain, (50, 3)).unique(dim=0).tolist() == [[2, 0, 3]]


@pytest.mark.parametrize("derive", [lambda key: random.split(key), lambda key: random.fold_in(key, torch.arange(2))])
def test_draws_of_derived_keys_are_not_correlated(derive):
    key = random.key(18)
    a, b, c = (random.normal(k, 100_000).double() for k in (key, *derive(key)))
    for x, y in ((a, b), (b, c), (a, c)):
        assert abs((x * y).mean().item()) < 4 / math.sqrt(100_000)


def test_consecutive_seeds_and_steps_are_not_correlated():
    for keys in (torch.stack([random.key(i) for i in range(300)]), random.fold_in(random.key(0), torch.arange(300))):
        draws = vmap(lambda key: random.normal(key, (300,)))(keys).double()
        off = (draws @ draws.T / 300).fill_diagonal_(0)
        assert off.abs().max() < 5.5 / math.sqrt(300)


# Shapes, dtypes and arguments


@given(st.lists(st.integers(0, 4), max_size=4).map(tuple))
@settings(max_examples=25, deadline=None)
def test_a_draw_has_the_shape_that_was_asked_for(shape):
    key = random.key(0)
    draws = [random.bits(key, shape), random.uniform(key, shape), random.normal(key, list(shape))]
    draws += [random.truncated_normal(key, shape), random.bernoulli(key, 0.5, shape), random.randint(key, shape, 0, 9)]
    draws += [random.categorical(key, THREE, shape), random.uniform(key, shape, dtype=DOUBLE)]
    assert {(draw.shape, draw.is_contiguous()) for draw in draws} == {(torch.Size(shape), True)}


def test_the_shape_of_bernoulli_is_that_of_p():
    assert random.bernoulli(random.key(0)).shape == ()
    assert random.bernoulli(random.key(0), torch.full((2, 3), 0.5)).shape == (2, 3)


@pytest.mark.parametrize("shape", [-1, (2, -1), 2.0, (2.0,), "ab", True, None, torch.tensor(3)])
def test_a_shape_that_is_none(shape):
    with pytest.raises(InvalidArgument, match="shape must be an integer of at least 0 or a tuple"):
        random.uniform(random.key(0), shape)


@pytest.mark.parametrize("draw", [random.uniform, random.normal, random.truncated_normal])
def test_a_dtype_that_is_not_drawn(draw):
    with pytest.raises(InvalidArgument, match=r"dtype must be one of torch.float64.*got torch.int64"):
        draw(random.key(0), 3, dtype=torch.int64)


@pytest.mark.parametrize("draw", [random.uniform, random.truncated_normal])
def test_limits_that_are_wrong(draw):
    key, one = random.key(0), torch.ones(3)
    for low, high in (
        (1.0, 1.0),
        (2.0, 1.0),
        (math.nan, 1.0),
        (1.0, 1 + 1e-12),
        (one, one),
        (0.0, torch.tensor([1.0, -1.0, 1.0])),
    ):
        with pytest.raises(InvalidArgument, match=r"low must be below high in torch\.float32"):
            draw(key, 3, low, high)
    with pytest.raises(InvalidArgument, match="high must be a number or a tensor, got 'a'"):
        draw(key, 3, 0.0, "a")
    with pytest.raises(ShapeMismatch, match=r"low of shape \(3,\) must broadcast to the shape of the draw, \(2,\)"):
        draw(key, 2, torch.zeros(3), 2.0)
    with pytest.raises(ShapeMismatch, match="must broadcast"):
        draw(key, (), torch.zeros(3), 2.0)


def test_limits_that_are_numbers_are_checked_in_a_trace_too():
    with pytest.raises(InvalidArgument, match="low must be below high"):
        make_fx(lambda key: random.uniform(key, 3, 2.0, 1.0))(random.key(0))


@pytest.mark.parametrize(("low", "high"), [(-math.inf, 0.0), (0.0, math.inf), (-3e38, 3e38)])
def test_uniform_over_an_infinite_range(low, high):
    with pytest.raises(InvalidArgument, match=r"high - low must be finite in torch.float32"):
        random.uniform(random.key(0), 3, low, high)
    with pytest.raises(InvalidArgument, match=r"high - low must be finite"):
        make_fx(lambda key: random.uniform(key, 3, low, high))(random.key(0))
    with pytest.raises(InvalidArgument, match=r"high - low must be finite"):
        random.uniform(random.key(0), 3, torch.tensor(low), high)


def test_truncated_normal_where_nothing_is_left():
    with pytest.raises(InvalidArgument, match=r"no probability is left between low=50\.0 and high=60\.0"):
        random.truncated_normal(random.key(0), 3, 50.0, 60.0)


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan, True, "a", None])
def test_p_that_is_no_probability(p):
    with pytest.raises(InvalidArgument, match="p must be a probability from 0 to 1"):
        random.bernoulli(random.key(0), p, 3)


@pytest.mark.parametrize("p", [torch.tensor([0.5, 1.5]), torch.tensor(math.nan), torch.tensor([1, 0])])
def test_a_tensor_that_holds_no_probabilities(p):
    with pytest.raises(InvalidArgument, match="p must be floating-point probabilities from 0 to 1"):
        random.bernoulli(random.key(0), p)


def test_p_that_does_not_fit_the_shape():
    with pytest.raises(ShapeMismatch, match=r"p of shape \(3,\) must broadcast"):
        random.bernoulli(random.key(0), torch.full((3,), 0.5), (2,))


@pytest.mark.parametrize(
    ("low", "high"), [(3, 3), (4, 3), (torch.tensor(4), 3), (torch.tensor([1, 4]), torch.tensor(3))]
)
def test_randint_of_an_empty_range(low, high):
    with pytest.raises(InvalidArgument, match="low must be below high"):
        random.randint(random.key(0), 2, low, high)


@pytest.mark.parametrize("high", [2.0, True, 2**63, torch.tensor(2.0), None])
def test_randint_with_a_limit_that_is_no_integer(high):
    with pytest.raises(InvalidArgument, match="high must be an integer of 64 bits or a tensor of integers"):
        random.randint(random.key(0), 3, 0, high)


def test_randint_with_limits_that_do_not_fit_the_shape():
    with pytest.raises(ShapeMismatch, match="high of shape"):
        random.randint(random.key(0), 3, 0, torch.arange(1, 3))


@pytest.mark.parametrize("of", [-1, 2.0, True, None, torch.tensor(3)])
def test_a_permutation_of_nothing(of):
    with pytest.raises(
        InvalidArgument, match="a permutation is of an integer of at least 0 or of a tensor with an axis"
    ):
        random.permutation(random.key(0), of)


@pytest.mark.parametrize("row", [[-math.inf, -math.inf], [math.nan, 0.0], [math.inf, 0.0]])
def test_logits_that_no_class_can_be_drawn_from(row):
    with pytest.raises(InvalidArgument, match=r"NaN or \+inf, or nothing but -inf"):
        random.categorical(random.key(0), torch.tensor([[0.0, 0.0], row]))


def test_logits_of_the_wrong_kind():
    key = random.key(0)
    for logits in (torch.arange(3), [0.5, 0.5]):
        with pytest.raises(InvalidArgument, match="logits must be a floating-point tensor"):
            random.categorical(key, logits)
    for logits, axis in ((torch.zeros(2, 0), -1), (torch.zeros(2), 1), (torch.zeros(()), -1)):
        with pytest.raises(InvalidArgument, match="must hold the classes, at least one"):
            random.categorical(key, logits, axis=axis)
    with pytest.raises(ShapeMismatch, match=r"logits, without the axis, of shape \(4,\) must broadcast"):
        random.categorical(key, torch.zeros(4, 3), (5,))


def test_gradients_flow_through_the_limits():
    high = torch.tensor(3.0, requires_grad=True)
    key = random.key(0)
    random.uniform(key, 5, 0.0, high).sum().backward()
    assert high.grad is not None
    torch.testing.assert_close(high.grad, random.uniform(key, 5).sum())


# Keys that are used twice

TWICE = {
    "two draws": lambda key: (random.uniform(key), random.normal(key)),
    "the same draw": lambda key: (random.bits(key, 3), random.bits(key, 3)),
    "a draw and a split": lambda key: (random.bernoulli(key), random.split(key)),
    "two splits": lambda key: (random.split(key), random.split(key)),
    "derived twice": lambda key: [random.permutation(random.fold_in(key, "a", 1), 3) for _ in range(2)],
}
ONCE = {
    "folded and drawn": lambda key: (random.fold_in(key, 1), random.fold_in(key, 1), random.randint(key, (), 0, 3)),
    "folded apart": lambda key: [random.uniform(random.fold_in(key, i)) for i in range(3)],
    "folded by names": lambda key: [random.uniform(random.fold_in(key, name)) for name in "ab"],
    "split": lambda key: [random.uniform(k) for k in random.split(key, 3)],
    "categorical": lambda key: random.categorical(key, key.float()),
}


def last(result):
    return result if isinstance(result, torch.Tensor) else result[-1]


RUNS = {
    "plain": lambda f, key: f(key),
    "traced": lambda f, key: make_fx(f)(key),
    "traced with fake tensors": lambda f, key: make_fx(f, tracing_mode="fake")(key),
    "vmapped": lambda f, key: vmap(lambda key: last(f(key)))(key[None]),
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", TWICE)
def test_a_key_used_twice_is_reported(name, run):
    message = r"used twice, by \w+ at .*test_random\.py:\d+ and by \w+ at .*test_random\.py:\d+: .*split or fold_in"
    with pytest.raises(KeyReused, match=message), random.checked_keys():
        RUNS[run](TWICE[name], random.key(0))


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", ONCE)
def test_keys_used_once_are_not_reported(name, run):
    with random.checked_keys():
        RUNS[run](ONCE[name], random.key(0))


def test_keys_are_checked_inside_the_context_alone():
    key = random.key(0)
    random.uniform(key)
    with random.checked_keys():
        random.uniform(key)
    with random.checked_keys():
        random.uniform(key)
    random.uniform(key)


def test_checking_changes_no_draw():
    key = random.key(0)
    wanted = random.uniform(key, 5)
    with random.checked_keys():
        assert torch.equal(random.uniform(key, 5), wanted)
