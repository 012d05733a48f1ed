"""Keys: made from seeds, split and folded, and what is refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import vmap

from functrain import random
from functrain.engine import jit
from functrain.errors import InvalidArgument, InvalidKey, KeyReused, ShapeMismatch
from functrain.random.philox import MASK
from functrain.random.words import DRAW, FEW, FOLD, SPLIT


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


@given(data, data)
@settings(max_examples=60, deadline=None)
def test_data_fold_in_one_after_another_but_for_names_that_stand_together(a, b):
    key = random.key(9)
    apart = torch.equal(random.fold_in(key, *a, *b), random.fold_in(random.fold_in(key, *a), *b))
    assert apart != bool(a and b and isinstance(a[-1], str) and isinstance(b[0], str))


def test_a_name_and_a_number_fold_in_one_after_another():
    key = random.key(9)
    for data in (("a", 4), (4, "a"), (4, 5), ("a", torch.tensor(4))):
        assert torch.equal(random.fold_in(key, *data), random.fold_in(random.fold_in(key, data[0]), data[1]))


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
    assert all(random.keys.hash_words((str(i),))[1] >> 28 == FOLD >> 28 for i in hashes)
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
    users += [lambda k: random.permutation(k, 3), lambda k: random.categorical(k, torch.zeros(3))]
    for user in users:
        with pytest.raises(
            InvalidKey, match=rf"int64 tensor of shape \(\.\.\., 2\).*{got}.*random.key\(seed\) makes one|{got}"
        ):
            user(bad)


def test_a_draw_takes_one_key():
    with pytest.raises(InvalidKey, match=r"one random key of shape \(2,\).*\(3, 2\).*engine.vmap"):
        random.uniform(random.split(random.key(0), 3))


USERS = {
    "bits": lambda key: random.bits(key, 7),
    "many bits": lambda key: random.bits(key, 4 * FEW + 9),
    "uniform": lambda key: random.uniform(key, (5, 3), dtype=torch.float64),
    "bernoulli": lambda key: random.bernoulli(key, 0.3, 9999),
    "dropout_mask": lambda key: random.dropout_mask(key, 0.3, 99),
    "split": random.split,
    "fold_in": lambda key: random.fold_in(key, "a", 4),
    "permutation": lambda key: random.permutation(key, 9),
}


@pytest.mark.parametrize("name", USERS)
@pytest.mark.parametrize("words", [[-1, 0], [0, 2**32], [2**63 - 1, -(2**63)]])
def test_of_the_words_of_a_key_the_lower_32_bits_count(name, words):
    f, key = USERS[name], torch.tensor(words)
    wanted = f(key & MASK)
    ways = {"plain": f, "jitted": jit(f), "vmapped": lambda key: vmap(f)(key[None])[0]}
    assert [way for way, run in ways.items() if not torch.equal(run(key), wanted)] == []


def test_keys_that_mean_the_same_are_the_same_key():
    with pytest.raises(KeyReused), random.check_keys():
        random.bits(torch.tensor([-1, 0]))
        random.bits(torch.tensor([MASK, 0]))


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
