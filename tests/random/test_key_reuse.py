"""Keys that are used twice."""

import pytest
import torch
from torch.func import vmap
from torch.fx.experimental.proxy_tensor import make_fx

from functrain import random
from functrain.errors import KeyReused

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
    place = r"\w+ at .*test_key_reuse\.py:\d+"
    message = rf"used twice, by {place} and by {place}: .*split or fold_in"
    with pytest.raises(KeyReused, match=message), random.check_keys():
        RUNS[run](TWICE[name], random.key(0))


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", ONCE)
def test_keys_used_once_are_not_reported(name, run):
    with random.check_keys():
        RUNS[run](ONCE[name], random.key(0))


def test_keys_are_checked_inside_the_context_alone():
    key = random.key(0)
    random.uniform(key)
    with random.check_keys():
        random.uniform(key)
    with random.check_keys():
        random.uniform(key)
    random.uniform(key)


def test_checking_changes_no_draw():
    key = random.key(0)
    wanted = random.uniform(key, 5)
    with random.check_keys():
        assert torch.equal(random.uniform(key, 5), wanted)
