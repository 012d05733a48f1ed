"""Modules and calls that are refused, each in words that name the place and the remedy."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch import nn as tnn

import functrain as ft
from functrain import nn, random
from functrain.errors import InvalidArgument, NotTraceable, SideEffect, TreeMismatch
from tests.interop import modules
from tests.interop.test_draws import Does

X = torch.ones(2, 4)


def applied(module, x=X, train=True, **options):
    model = nn.from_module(module, **options)
    params, buffers = model.init(random.key(0), x)
    return model.apply(params, buffers, x, nn.training(random.key(0)) if train else nn.evaluation())


def refused(words, error=InvalidArgument):
    return pytest.raises(error, match=re.escape(words))


def with_hook():
    module = tnn.Linear(4, 4)
    module.register_full_backward_hook(lambda *args: None)
    return module


def with_gradient_hook():
    module = tnn.Linear(4, 4)
    module.weight.register_hook(lambda grad: grad * 2)
    return module


class HoldsLoose(tnn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = [torch.ones(4, requires_grad=True)]


class OwnLazy(tnn.modules.lazy.LazyModuleMixin, tnn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = tnn.UninitializedParameter()


def old_norm(name):
    return lambda: getattr(tnn.utils, name)(tnn.Linear(4, 4))


MODULES = {
    "a class": (lambda: tnn.Linear, "got the class Linear; call it first"),
    "a function": (lambda: torch.relu, "a function of a tensor is a layer as it is"),
    "a wrapper": (lambda: tnn.Sequential(tnn.DataParallel(tnn.Linear(1, 1))), "0 is a DataParallel; pass what"),
    "a backward hook": (with_hook, "the module has a backward hook"),
    "a hook on a gradient": (with_gradient_hook, "the parameter weight has a hook on its gradient"),
    "a loose tensor": (HoldsLoose, "weights.0 requires gradients and is not registered"),
    "a lazy module of its own": (OwnLazy, "call the module once with an example first"),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
def test_modules_that_cannot_be_made_pure(name):
    make, words = MODULES[name]
    with refused(words):
        nn.from_module(make())


@pytest.mark.filterwarnings("ignore:.*deprecated.*:FutureWarning")
@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm"])
def test_old_hooks_are_refused_with_the_new_name(name):
    with refused(f"use torch.nn.utils.parametrizations.{name}"):
        nn.from_module(tnn.Sequential(old_norm(name)()))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`torch.jit:FutureWarning")
def test_compiled_modules_are_refused():
    with refused("the module is compiled by torch.jit"):
        nn.from_module(torch.jit.script(tnn.Linear(2, 2)))


def test_options():
    with refused("method must name a method of the module, and Linear has no 'encode'"):
        nn.from_module(tnn.Linear(1, 1), method="encode")
    with refused("out must be a function of what the module returns, got 'logits'"):
        nn.from_module(tnn.Linear(1, 1), out="logits")


class Counts(tnn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


class Clamps(tnn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = tnn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.inner.weight.data.clamp_(-1, 1)
        return self.inner(x)


class Replaces(tnn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = tnn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        self.weight = tnn.Parameter(self.weight * 2)
        return x * self.weight


CALLS = {
    "a closure": (modules.Closure, "the forward uses the tensor linear.weight of the original module"),
    "a write to a plain tensor": (Counts, "changes calls, a tensor that is no buffer, in place (add_)"),
    "a write to a parameter": (Clamps, "changes the parameter inner.weight in place (clamp_)"),
    "a write to the input": (lambda: tnn.Sequential(tnn.ReLU(inplace=True)), "0 changes its input in place (inplace)"),
    "a write by out=": (lambda: Does(lambda x: torch.add(x, 1, out=x)), "changes its input in place (out)"),
    "a write by an index": (lambda: Does(lambda x: x.__setitem__(0, 1.0)), "changes its input in place (__setitem__)"),
    "max_norm": (lambda: tnn.Sequential(tnn.Embedding(3, 2, max_norm=1.0)), "0 looks up an embedding with max_norm"),
    "sparse": (lambda: tnn.Sequential(tnn.Embedding(3, 2, sparse=True)), "0 looks up an embedding with sparse=True"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_forwards_that_change_what_they_may_not(name):
    make, words = CALLS[name]
    x = torch.zeros(2, 2, dtype=torch.int64) if "embedding" in words else X.clone()
    with refused(words):
        applied(make(), x)
    assert torch.equal(x, torch.zeros_like(x) if "embedding" in words else X)


def test_a_parameter_that_the_forward_replaces():
    with refused("the forward removes the parameter weight, or puts something else in its place", TreeMismatch):
        applied(Replaces())


def test_what_eager_refuses_compiled_refuses_too():
    for make in (Counts, Clamps):
        model = nn.from_module(make())
        params, buffers = model.init(random.key(0), X)
        with pytest.raises((InvalidArgument, SideEffect)):
            ft.jit(lambda p, b, x, m=model: m.apply(p, b, x)[0])(params, buffers, X)


def test_a_decision_by_values_names_the_submodule_and_the_line():
    class Decides(tnn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    model = nn.from_module(tnn.Sequential(tnn.Linear(4, 4), Decides()))
    params, buffers = model.init(random.key(0), X)
    assert model.apply(params, buffers, X)[0].shape == X.shape
    with pytest.raises(NotTraceable, match=r"test_refusals\.py:\d+: `return x if x\.sum\(\) > 0") as raised:
        ft.jit(lambda p, x: model.apply(p, buffers, x)[0])(params, X)
    assert "in layer 1" in getattr(raised.value, "__notes__", [])


def test_values_that_are_not_the_modules():
    model = nn.from_module(tnn.Sequential(tnn.Linear(4, 2), tnn.BatchNorm1d(2)))
    params, buffers = model.init(random.key(0), X)
    with refused("params lack 0.bias, float32(2,)", TreeMismatch):
        model.apply({**params, "0": {"weight": params["0"]["weight"]}}, buffers, X)
    with refused("params have more, which the module does not", TreeMismatch):
        model.apply({**params, "more": X}, buffers, X)
    with refused("buffers lack 1.running_mean", TreeMismatch):
        model.apply(params, {}, X)
    with pytest.raises(RuntimeError) as raised:
        model.apply({**params, "0": {**params["0"], "weight": torch.ones(2, 5)}}, buffers, X)
    assert "from_module: 0.weight is float32(2, 5), the module's own is float32(2, 4)" in raised.value.__notes__


def test_an_input_that_does_not_fit_the_signature():
    with refused("the input does not fit Bilinear.forward(input1"):
        applied(tnn.Bilinear(4, 4, 2), X)
    with refused("pass unpack=False to hand it over as one argument"):
        applied(tnn.Linear(4, 2), (X, X))


def test_fresh_values_need_a_method():
    with refused("scale has none; add it, or take the module's own values (fresh=False)"):
        nn.from_module(tnn.ModuleDict({"scale": modules.Keeps()}), fresh=True).init(random.key(0), X)


def test_running_statistics_of_functions_must_be_buffers():
    class Norm(tnn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.var = torch.zeros(4), torch.ones(4)

        def forward(self, x: Tensor) -> Tensor:
            return F.batch_norm(x, self.mean, self.var, training=True)

    with refused("that is no buffer"):
        applied(Norm())
