"""Generators of Python's and NumPy's own, held by a module or read by its code, are found out and put back."""

import random as python_random
import re

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import nn as tnn

import functrain as ft
from functrain import nn, random
from functrain.errors import HiddenRandomness

X = torch.ones(2, 4)
OF_NUMPY = np.random.default_rng(0)
OF_PYTHON = python_random.Random(0)


def draw() -> float:
    return OF_PYTHON.random()


class Holds(tnn.Module):
    def __init__(self, generator, use) -> None:
        super().__init__()
        self.inner = tnn.ModuleDict({"linear": tnn.Linear(4, 4)})
        self.inner.held, self.use = [generator], use

    def forward(self, x: Tensor) -> Tensor:
        return self.inner["linear"](x) + self.use(self.inner.held[0])


class Reads(Holds):
    def noise(self) -> float:
        return OF_NUMPY.normal()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.noise()


class Calls(Holds):
    def forward(self, x: Tensor) -> Tensor:
        return x + draw()


def hooked() -> tnn.Module:
    module, own = tnn.Linear(4, 4), np.random.default_rng(0)
    module.register_forward_hook(lambda module, args, y: y + own.normal())
    return module


MODULES = {
    "Python's": (lambda: Holds(python_random.Random(0), lambda g: g.random()), "inner.held.0, a generator of Python's"),
    "NumPy's": (lambda: Holds(np.random.default_rng(0), lambda g: g.normal()), "inner.held.0, a generator of NumPy's"),
    "NumPy's old": (lambda: Holds(np.random.RandomState(0), lambda g: g.normal()), "inner.held.0, a generator of"),
    "a global one": (lambda: Reads(None, None), "OF_NUMPY, a generator of NumPy's"),
    "by a function": (lambda: Calls(None, None), "OF_PYTHON, a generator of Python's"),
    "in a closure": (hooked, "own, a generator of NumPy's"),
}


@pytest.mark.parametrize("name", MODULES)
def test_draws_from_them_are_refused(name):
    make, words = MODULES[name]
    module = make()
    model = nn.from_module(module)
    params, buffers = model.init(random.key(0), X)
    states = OF_NUMPY.bit_generator.state, OF_PYTHON.getstate()
    for apply in (model.apply, ft.jit(model.apply)):
        for _ in range(2):
            with pytest.raises(HiddenRandomness, match=re.escape(words)):
                apply(params, buffers, X)
    assert (OF_NUMPY.bit_generator.state, OF_PYTHON.getstate()) == states
    if isinstance(module, Holds) and isinstance(held := module.inner.held[0], python_random.Random):
        assert held.random() == python_random.Random(0).random()


def test_those_that_nobody_draws_from_may_be_held():
    model = nn.from_module(Holds(np.random.default_rng(0), lambda g: np.random.default_rng(3).normal()))
    params, buffers = model.init(random.key(0), X)
    a, b = (model.apply(params, buffers, X)[0] for _ in range(2))
    assert torch.equal(a, b)
