"""A key gives the same bits in every mode, with any number of threads, and for any size."""

import itertools

import pytest
import torch
from torch.func import vmap
from torch.fx.experimental.proxy_tensor import make_fx

from functrain import random
from functrain.engine import jit
from functrain.random.words import CHUNK, FEW, FEWEST

HALF, BRAIN, DOUBLE = torch.float16, torch.bfloat16, torch.float64
THREE = torch.tensor([0.5, 0.2, 0.3]).log()
MANY = 4 * CHUNK + 5  # more than a chunk, and no multiple of anything

DRAWS = {
    "bits": lambda key: random.bits(key, (5, 3)),
    "bits of one": lambda key: random.bits(key),
    "bits of none": lambda key: random.bits(key, (0, 3)),
    "bits of some": lambda key: random.bits(key, 4 * FEWEST + 3),
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
    "bernoulli of some": lambda key: random.bernoulli(key, 0.3, (8 * FEWEST + 3,)),
    "bernoulli tensor": lambda key: random.bernoulli(key, key[0] / 2.0**32, (101,)),
    "bernoulli tensors": lambda key: random.bernoulli(key, key / 2.0**32),
    "bernoulli of many rates": lambda key: random.bernoulli(key, 0.3, (3, MANY)),
    "bernoulli rounded": lambda key: random.bernoulli(key, 2**-16, (MANY,)),
    "dropout_mask": lambda key: random.dropout_mask(key, 0.1, (MANY,)),
    "dropout_mask of few": lambda key: random.dropout_mask(key, 0.1, (5, 3), DOUBLE),
    "dropout_mask of some": lambda key: random.dropout_mask(key, 0.1, (8 * FEWEST + 3,)),
    "dropout_mask bfloat16": lambda key: random.dropout_mask(key, 0.1, (101,), BRAIN),
    "dropout_mask of some, tensor": lambda key: random.dropout_mask(key, key[0] / 2.0**33, (8 * FEWEST + 3,), HALF),
    "dropout_mask tensor": lambda key: random.dropout_mask(key, key[0] / 2.0**33, (MANY,)),
    "randint": lambda key: random.randint(key, (MANY,), -5, 9),
    "randint wide": lambda key: random.randint(key, (101,), -(2**63), 2**63 - 1),
    "randint tensor": lambda key: random.randint(key, (101,), -5, key[0]),
    "permutation": lambda key: random.permutation(key, 1001),
    "permutation of rows": lambda key: random.permutation(key, key.expand(5, 2) + key.new_ones(5, 2).cumsum(0)),
    "categorical": lambda key: random.categorical(key, key.float() / 2.0**32),
    "categorical of many": lambda key: random.categorical(key, key.float() / 2.0**32, MANY // 2),
    "categorical float64": lambda key: random.categorical(key, (key.double() / 2.0**32).expand(5, 2).T, (4, 5), axis=0),
    "split": lambda key: random.split(key, 3),
    "split into some": lambda key: random.split(key, FEWEST + 9),
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


@pytest.mark.parametrize("count", [1, 4, 4 * FEWEST, 4 * FEWEST + 1, 4 * FEW, 4 * FEW + 1, 4 * CHUNK, 4 * CHUNK + 1])
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


HARD = (0.0, 1e-12, 1e-9, 1e-7, 2**-16, 0.1, 0.5, 0.5 + 2**-30, 1 / 3, 1 - 2**-17, 1 - 1e-12, 1.0)


def by_definition(key, p, count):
    """16 bits with sign of the first stream, the lower half of a word before the higher; a word of the second below."""
    words = random.bits(key, -(-count // 2))
    halves = (torch.stack((words & 0xFFFF, words >> 16), -1).view(-1)[:count] + 2**15) % 2**16
    second = random.drawing.draw(key, (count,), "words", [], torch.int64, 1)
    return halves << 32 | second, (halves << 32 | second) < round(p * 2**48)


@pytest.mark.parametrize("p", HARD)
def test_bernoulli_is_48_bits_below_p(p):
    for key in random.split(random.key(8), 3):
        _, wanted = by_definition(key, p, MANY * 4)
        exact = torch.tensor(p, dtype=DOUBLE)
        assert torch.equal(random.bernoulli(key, p, MANY * 4), wanted)
        assert torch.equal(random.bernoulli(key, exact, MANY * 4), wanted)
        assert torch.equal(random.bernoulli(key, exact.expand(MANY * 4)), wanted)
        assert torch.equal(random.bernoulli(key, p, (9, 9)), wanted[:81].view(9, 9))


@pytest.mark.parametrize("place", [0, 1, 7, 8, 799])
@pytest.mark.parametrize("above", [0, 1])
def test_a_tie_of_the_first_16_bits_is_decided_by_the_second_word(place, above):
    key = random.key(8)
    p = (int(by_definition(key, 0.0, 800)[0][place]) + above) / 2**48  # the very bits of an element, or one more
    exact = torch.tensor(p, dtype=DOUBLE)
    ways = {
        "few": lambda key: random.bernoulli(key, p, 800),
        "many": lambda key: random.bernoulli(key, p, 9999),
        "a tensor": lambda key: random.bernoulli(key, exact, 9999),
        "tensors": lambda key: random.bernoulli(key, exact.expand(9999)),
    }
    for way, draw in ways.items():
        for mode, values in (("eager", draw(key)), ("jit", jit(draw)(key)), ("vmap", vmap(draw)(key[None])[0])):
            assert (way, mode, bool(values[place])) == (way, mode, bool(above))


def test_a_larger_probability_keeps_what_was_true():
    draws = [random.bernoulli(random.key(8), p, MANY) for p in sorted(HARD)]
    assert all((less <= more).all() for less, more in itertools.pairwise(draws))


@pytest.mark.parametrize("rate", [0.0, 2**-18, 0.1, 0.5, 1 / 3, 0.9, 0.9999, 1 - 2**-17, 1 - 1e-12])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_the_mask_of_dropout_is_what_bernoulli_keeps_over_its_probability(rate, dtype):
    key, exact = random.key(8), torch.tensor(rate, dtype=DOUBLE)
    kept = min(max(round((1 - rate) * 2**16), 1), 2**16) / 2**16
    wanted = random.bernoulli(key, kept, MANY).to(dtype) / kept

    def draw(key, rate):
        return random.dropout_mask(key, rate, (MANY,), dtype)

    assert torch.equal(draw(key, rate), wanted) and torch.equal(draw(key, exact), wanted)
    assert torch.equal(jit(draw)(key, rate), wanted) and torch.equal(jit(draw)(key, exact), wanted)
