"""Things of all kinds that a module holds and changes: each application begins with the same."""

import argparse
import collections
import dataclasses
import types

import pytest
import torch
from torch import Tensor
from torch import nn as tnn

import functrain as ft
from functrain import nn, random
from functrain.errors import InvalidArgument

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Slots:
    __slots__ = ("__hidden", "count", "layer")

    def __init__(self) -> None:
        self.count, self.layer, self.__hidden = 0, None, 2


class SlotsBelow(Slots):
    """Has a `__dict__` beside the slots."""


@dataclasses.dataclass(slots=True)
class Record:
    count: int = 0
    layer: object = None


class OwnDict(dict):
    """A dict that is made in a way of its own, and has attributes."""

    def __init__(self, note: str, **values) -> None:
        super().__init__(**values)
        self.note = note

    def __setitem__(self, name, value) -> None:
        super().__setitem__(name, value + 0.0 if name == "count" else value)


class OwnList(list):
    pass


def attribute(held) -> float:
    held.count += 1
    return held.count


def item(held) -> float:
    held["count"] += 1
    return held["count"]


def first(held) -> float:
    held[0] += 1
    return held[0]


HELD = {
    "slots": (Slots, attribute),
    "slots and more": (SlotsBelow, attribute),
    "a record with slots": (Record, attribute),
    "a namespace": (lambda: types.SimpleNamespace(count=0, layer=None), attribute),
    "options": (lambda: argparse.Namespace(count=0, layer=None), attribute),
    "an own dict": (lambda: OwnDict("note", count=0, layer=None), item),
    "a counter": (lambda: collections.Counter(count=0), item),
    "an own list": (lambda: OwnList([0, None]), first),
}


class Holds(tnn.Module):
    def __init__(self, held, use) -> None:
        super().__init__()
        self.linear, self.held, self.use = tnn.Linear(4, 4), held, use
        if isinstance(held, list):
            held[1] = self.linear
        elif isinstance(held, dict):
            held["layer"] = self.linear
        else:
            held.layer = self.linear

    def layer(self) -> tnn.Module:
        if isinstance(self.held, list):
            return self.held[1]
        return self.held["layer"] if isinstance(self.held, dict) else self.held.layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer()(x) * self.use(self.held)


@pytest.mark.parametrize("name", HELD)
def test_each_application_begins_with_the_same(name):
    make, use = HELD[name]
    module = Holds(make(), use)
    model = nn.from_module(module)
    params, buffers = model.init(random.key(0), X)
    for apply in (model.apply, ft.jit(model.apply), ft.vmap(model.apply, in_dims=(None, None, 0))):
        for _ in range(2):
            assert torch.allclose(apply(params, buffers, X)[0], module.linear(X), atol=1e-6)
    assert ft.grad(lambda p: model.apply(p, buffers, X)[0].sum())(params)["linear"]["weight"].any()
    assert torch.allclose(nn.to_module(model, params, buffers)(X), module(X), atol=1e-6)  # the first call of both


def test_a_module_with_slots():
    class Scaled(tnn.Module):
        __slots__ = ("scale",)

        def __init__(self) -> None:
            super().__init__()
            self.scale, self.linear = 2.0, tnn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) * self.scale * (3 if self.training else 1)

    module = Scaled().eval()
    model = nn.from_module(module)
    params, buffers = model.init(random.key(0), X)
    assert torch.equal(model.apply(params, buffers, X)[0], module(X))
    trained, _ = model.apply(params, buffers, X, nn.training(random.key(0)))
    assert torch.allclose(trained, module.train()(X))


def test_a_module_without_memory_is_refused_in_words():
    model = nn.from_module(tnn.Sequential(tnn.Linear(4, 4, device="meta")))
    with pytest.raises(InvalidArgument, match=r"0\.weight is on the device meta, where it has a shape and no values"):
        model.init(random.key(0), X)
    params, _ = model.init(random.key(0), X.to("meta"))
    assert params["0"]["weight"].device.type == "meta"
