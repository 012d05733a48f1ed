"""Every draw has the same bits eager, jitted by each backend, vmapped and on any number of threads, in every shape."""

import subprocess
import sys

import pytest
import torch
from torch.func import vmap

from functrain import random
from functrain.engine import jit
from functrain.random.words import CHUNK
from tests.random.draws import DRAWS_OF_A_SHAPE

SHAPES = [(), (0,), (0, 3), (1,), (7,), (3, 5), (2, 3, 4), (1201,)]
LARGE = (3, 4 * CHUNK // 3 + 7)
KEYS = random.split(random.key(5), 3)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", DRAWS_OF_A_SHAPE)
def test_a_draw_is_the_same_in_every_mode_and_shape(name, shape):
    f = DRAWS_OF_A_SHAPE[name]

    def draw(key):
        return f(key, shape)

    wanted, fast = torch.stack([draw(key) for key in KEYS]), jit(draw)
    assert wanted.shape == (3, *shape)
    assert torch.equal(torch.stack([fast(key) for key in KEYS]), wanted)
    assert torch.equal(vmap(draw)(KEYS), wanted)
    assert torch.equal(jit(vmap(draw))(KEYS), wanted)


@pytest.fixture(scope="module")
def compiled():
    """All draws in one function, compiled by inductor, of a small shape and of one that goes over a chunk."""

    def every(key):
        small = {name: f(key, (3, 5)) for name, f in DRAWS_OF_A_SHAPE.items() if name not in NOT_BITS}
        large = {name: DRAWS_OF_A_SHAPE[name](key, LARGE) for name in ("bits", "bernoulli", "dropout_mask", "uniform")}
        return small, large, random.split(key, 3), random.fold_in(key, "a", 4), random.permutation(key, 11)

    return every, jit(every, backend="inductor")


NOT_BITS = {"normal", "normal float64", "truncated_normal", "truncated_normal float64"}
"""What inductor's own logarithms and inverse error function may round otherwise; the bits under them are the same."""


def test_inductor_draws_the_same_bits(compiled):
    every, fast = compiled
    for key in KEYS:
        (small, large, *keys), (small_found, large_found, *keys_found) = every(key), fast(key)
        different = [name for name in small if not torch.equal(small[name], small_found[name])]
        different += [name for name in large if not torch.equal(large[name], large_found[name])]
        assert different == [] and all(map(torch.equal, keys, keys_found))


SUMS = """
import torch
from functrain import random
from functrain.engine import jit
from tests.random.draws import DRAWS_OF_A_SHAPE
from tests.random.test_modes_and_shapes import LARGE
torch.set_num_threads({})
for name, f in DRAWS_OF_A_SHAPE.items():
    for draw in (f, jit(lambda key: f(key, LARGE))):
        values = draw(random.key(3), LARGE) if draw is f else draw(random.key(3))
        print(name, hash(values.double().numpy().tobytes()))
"""


def test_the_number_of_threads_does_not_matter():
    def printed(threads):
        command = [sys.executable, "-c", SUMS.format(threads)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, env=environment())

    one, two = printed(1).stdout, printed(2).stdout
    assert one == two and len(one.splitlines()) == 2 * len(DRAWS_OF_A_SHAPE)


def environment():
    import os
    from pathlib import Path

    root = str(Path(__file__).resolve().parent.parent.parent)
    return {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": root, "OMP_NUM_THREADS": "2"}
