"""Buffers written to in unusual ways: the new values are those of the module itself, in eager, compiled and mapped."""

import pytest
import torch
from torch import Tensor
from torch import nn as tnn

import functrain as ft
from functrain import nn, random, tree

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))

WRITES = {
    "add": lambda held, o: torch._foreach_add_(held, o, alpha=0.5),
    "add a number": lambda held, o: torch._foreach_add_(held, 2.0),
    "add numbers": lambda held, o: torch._foreach_add_(held, [1.0, 2.0]),
    "add a tensor": lambda held, o: torch._foreach_add_(held, torch.tensor(3.0)),
    "multiply by name": lambda held, o: torch._foreach_mul_(held, scalar=0.1),
    "interpolate": lambda held, o: torch._foreach_lerp_(held, o, 0.3),
    "products": lambda held, o: torch._foreach_addcmul_(held, o, o, value=0.2),
    "products by numbers": lambda held, o: torch._foreach_addcmul_(held, o, o, [0.2, 0.3]),
    "quotients by a tensor": lambda held, o: torch._foreach_addcdiv_(held, o, o, torch.tensor([0.2, 0.3])),
    "maximum": lambda held, o: torch._foreach_maximum_(held, o),
    "minimum": lambda held, o: torch._foreach_minimum_(held, [0.5, 0.1]),
    "copy": lambda held, o: torch._foreach_copy_(held, o),
    "zero": lambda held, o: torch._foreach_zero_(held),
    "of views": lambda held, o: torch._foreach_add_([held[0].view(3), held[1].T], [o[0], o[1].T]),
}


class Writes(tnn.Module):
    def __init__(self, write) -> None:
        super().__init__()
        self.write, self.linear = write, tnn.Linear(3, 3)
        self.register_buffer("one", torch.ones(3))
        self.register_buffer("two", torch.zeros(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        with torch.no_grad():
            self.write([self.one, self.two], [y.mean(0), y[:2] * 2])
        return y * self.one + self.two.sum()


class SetsData(tnn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = tnn.Linear(3, 3)
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        self.mean.data = 0.9 * self.mean + y.mean(0).detach()
        return y - self.mean


def stacked(values):
    return tree.map(lambda t: torch.stack([t, t * 1.5, t - 0.1]), values)


def check(module: tnn.Module, jit: bool = True, x: Tensor = X) -> None:
    """Compare two training steps with the module's own, and a vmap over stacked values with a loop."""
    model = nn.from_module(module)
    start = params, buffers = model.init(random.key(0), x)

    def step(params, buffers):
        def loss(params):
            y, after = model.apply(params, buffers, x, nn.training(random.key(0)))
            return y.square().mean(), after

        (_, after), grads = ft.value_and_grad(loss, has_aux=True)(params)
        return tree.map(lambda p, g: p - 0.1 * g, params, grads), after

    many = stacked(params), stacked(buffers)
    rows = [step(*tree.map(lambda t, k=k: t[k], many)) for k in range(3)]
    loop = tree.map(lambda *t: torch.stack(t), *rows)
    assert tree.differences(ft.vmap(step)(*many), loop, rtol=1e-4, atol=1e-5) == []

    own = [start]
    for _ in range(2):
        module.train().zero_grad()
        module(x).square().mean().backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter -= 0.1 * parameter.grad  # pyright: ignore
        own.append(nn.from_module(module).init(random.key(0), x))
    for way in (step, ft.jit(step, backend="aten"))[: 1 + jit]:
        values = start
        for expected in own[1:]:
            values = way(*values)
            assert tree.differences(values, expected, rtol=1e-4, atol=1e-5) == []


@pytest.mark.parametrize("name", WRITES)
def test_writes_to_many_tensors_at_once(name):
    torch.manual_seed(0)
    check(Writes(WRITES[name]))


def test_data_that_is_set():
    torch.manual_seed(0)
    check(SetsData(), jit=False)  # which a trace refuses


def test_spectral_norm_under_a_vmap_over_values():
    torch.manual_seed(0)
    norm = tnn.utils.parametrizations.spectral_norm
    check(tnn.Sequential(norm(tnn.Linear(3, 4)), tnn.Tanh(), norm(tnn.Linear(4, 2), n_power_iterations=2)))


@pytest.mark.parametrize("cell", [tnn.LSTMCell, tnn.GRUCell, tnn.RNNCell])
@pytest.mark.parametrize("bias", [True, False])
def test_cells_under_a_vmap_are_a_loop(cell, bias):
    torch.manual_seed(0)
    model = nn.from_module(cell(3, 2, bias=bias))
    params, buffers = model.init(random.key(0), X)
    rows = torch.randn(5, 4, 3)
    mapped = ft.vmap(lambda x: model.apply(params, buffers, x)[0])(rows)
    loop = tree.map(lambda *t: torch.stack(t), *[model.apply(params, buffers, x)[0] for x in rows])
    assert tree.differences(mapped, loop, atol=1e-6) == []


def test_a_number_kept_in_a_buffer_that_rows_share_is_refused_in_words():
    class Counts(tnn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.total += x.sum()
            return x + self.total

    model = nn.from_module(Counts())
    params, buffers = model.init(random.key(0), X)
    with pytest.raises(ft.errors.SideEffect, match="writes what differs by row into a tensor that all rows share"):
        ft.vmap(lambda x: model.apply(params, buffers, x)[0])(X)


class Twice(tnn.Module):
    """Holds its buffer in another place too."""

    def __init__(self, change) -> None:
        super().__init__()
        self.change = change
        self.register_buffer("mean", torch.zeros(3))
        self.held = {"mean": self.mean}

    def forward(self, x: Tensor) -> Tensor:
        self.change(self, x.mean(0))
        return x + self.mean + self.held["mean"]


def register_twice(module: Twice) -> Twice:
    module.register_buffer("other", module.mean)
    return module


def both(module: Twice, new: Tensor) -> None:
    module.mean = module.held["mean"] = module.mean + new


def applied_twice(module: Twice) -> dict[str, Tensor]:
    model = nn.from_module(module)
    params, buffers = model.init(random.key(0), X)
    for _ in range(2):
        module(X)
        _, buffers = model.apply(params, buffers, X)
    return buffers


def test_a_buffer_held_in_two_places():
    for change in (lambda m, new: m.held["mean"].add_(new), lambda m, new: m.mean.add_(new), both):
        module = Twice(change)
        assert torch.allclose(applied_twice(module)["mean"], module.mean)


def test_what_is_put_in_the_place_of_an_alias_is_not_the_buffer():
    assert not applied_twice(Twice(lambda m, new: m.held.update(mean=new)))["mean"].any()


def test_a_buffer_replaced_in_one_place_alone_is_refused():
    for module in (Twice(lambda m, new: setattr(m, "mean", new)), register_twice(Twice(both))):
        with pytest.raises(ft.errors.TreeMismatch, match="replaces the buffer mean, which the module holds in another"):
            applied_twice(module)
