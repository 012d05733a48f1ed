"""Every draw has the same bits eager, jitted by each backend, vmapped and on any number of threads, in every shape."""

import os
import subprocess
import sys
from pathlib import Path

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


BY_INDUCTOR = ("bernoulli", "randint wide")


def test_inductor_draws_the_same_bits():
    # All in one function: compiling takes long. Wide integers, whose products run over 64 bits, it once got wrong.
    def every(key):
        small = {name: DRAWS_OF_A_SHAPE[name](key, (3, 5)) for name in BY_INDUCTOR}
        return small, random.dropout_mask(key, 0.1, LARGE), random.fold_in(key, "a", 4)

    fast = jit(every, backend="inductor")
    for key in KEYS:
        (small, *others), (small_found, *others_found) = every(key), fast(key)
        assert [name for name in small if not torch.equal(small[name], small_found[name])] == []
        assert all(map(torch.equal, others, others_found))


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
    root = str(Path(__file__).resolve().parent.parent.parent)
    return {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": root, "OMP_NUM_THREADS": "2"}
