"""What a forward would have to keep beside what `init` returned, and what it computes when it is over, is refused."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch import nn as tnn

import functrain as ft
from functrain import nn, random
from functrain.errors import InvalidArgument, TreeMismatch
from tests.interop.test_draws import Does

X = torch.ones(2, 4)


class Late(tnn.Module):
    """A module that registers something at its first call."""

    def __init__(self, register) -> None:
        super().__init__()
        self.register, self.linear = register, tnn.Linear(4, 4)
        self.register_buffer("first", None)
        self.register_buffer("scratch", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.register(self, x)
        return self.linear(x)


def built(module: tnn.Module, x: Tensor) -> None:
    module.inner = tnn.Sequential(tnn.ReLU(), tnn.Linear(4, 4))


KEPT = {
    "a parameter": (lambda m, x: setattr(m, "w", tnn.Parameter(x[0] * 2)), "the parameter w"),
    "of a submodule": (lambda m, x: setattr(m.linear, "w", tnn.Parameter(x[0] * 2)), "the parameter linear.w"),
    "a module": (built, "the parameter inner.1.weight"),
    "a norm": (lambda m, x: setattr(m, "norm", tnn.BatchNorm1d(4, affine=False)), "the buffer norm.running_mean"),
    "a buffer": (lambda m, x: m.register_buffer("mean", x.mean(0)), "the buffer mean"),
    "a buffer that was None": (lambda m, x: setattr(m, "first", x.mean(0)), "the buffer first"),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_init_did_not_return_is_refused(name):
    register, words = KEPT[name]
    model = nn.from_module(Late(register))
    params, buffers = model.init(random.key(0), X)

    def apply(params, buffers, x):
        return model.apply(params, buffers, x, nn.training(random.key(0)))

    for way in (apply, ft.jit(apply)):
        message = f"the forward registers {words}, which init did not return"
        with pytest.raises(TreeMismatch, match=re.escape(message)):
            way(params, buffers, X)


SCRATCH = {
    "a buffer that is not saved": lambda m, x: m.register_buffer("mask", x > 0, persistent=False),
    "one that was None": lambda m, x: setattr(m, "scratch", x.mean(0)),
    "a module without values": lambda m, x: setattr(m, "act", tnn.ReLU()),
    "a tensor": lambda m, x: setattr(m, "seen", x),
}


@pytest.mark.parametrize("name", SCRATCH)
def test_what_each_call_may_compute_anew_is_not(name):
    module = Late(SCRATCH[name])
    model = nn.from_module(module)
    params, buffers = model.init(random.key(0), X)
    for _ in range(2):
        assert torch.equal(model.apply(params, buffers, X)[0], module.linear(X))


@pytest.mark.parametrize("lazy", [lambda x: (F.dropout(x) for _ in range(2)), lambda x: map(F.dropout, [x, x])])
def test_what_computes_when_the_application_is_over_is_refused_or_made_a_list(lazy):
    module = Does(lazy)
    model = nn.from_module(module)
    params, buffers = model.init(random.key(0), X)
    with pytest.raises(InvalidArgument, match="which computes when the application is over"):
        model.apply(params, buffers, X, nn.training(random.key(0)))
    chosen = nn.from_module(module, out=list)
    a, b = (chosen.apply(params, buffers, X, nn.training(random.key(0)))[0] for _ in range(2))
    assert all(map(torch.equal, a, b)) and not torch.equal(a[0], a[1])
