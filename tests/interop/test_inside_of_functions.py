"""Code of the user's that PyTorch runs inside of a function: the rules of the module's application go on there.

Draws come from the key, gradients are those of the numbers that the value had, and writes are seen as elsewhere.
"""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn as tnn
from torch.autograd import Function
from torch.utils.checkpoint import checkpoint

import functrain as ft
from functrain import nn, random
from functrain.errors import HiddenRandomness, InvalidArgument, SideEffect

N = 16
X = torch.linspace(0.1, 1.0, N, dtype=torch.float64)
WEIGHTS = torch.linspace(1.0, 2.0, N, dtype=torch.float64)


def drop(x):
    return F.dropout(x, 0.5, True)


class Does(tnn.Module):
    def __init__(self, place: Any, act: Any = None) -> None:
        super().__init__()
        self.w = tnn.Parameter(torch.linspace(0.5, 1.5, N, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(N, dtype=torch.float64))
        self.place, self.act = place, act

    def forward(self, x):
        place = self.place if self.act is None else self.place(lambda y: self.act(self, x, y))
        return place(self.w * x)


def function_of(forward=lambda x: x, backward=lambda g: g):
    """Return a function whose passes do this besides."""

    class Own(Function):
        @staticmethod
        def forward(ctx, x):
            return forward(x * 1)

        @staticmethod
        def backward(ctx, cotangent):  # pyright: ignore[reportIncompatibleMethodOverride]
            return backward(cotangent)

    return lambda x: Own.apply(x)


def function_with_setup(forward=lambda x: x, backward=lambda g: g):
    class Own(Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return forward(x * 1)

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def backward(ctx, cotangent):  # pyright: ignore[reportIncompatibleMethodOverride]
            return backward(cotangent)

    return lambda x: Own.apply(x)


def inner(f, by_backward=False):
    """Return the function that takes a gradient inside of the module."""

    def gradient(x):
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            total = f(y).square().sum()
            if by_backward:
                total.backward()
            return (y.grad if by_backward else torch.autograd.grad(total, y)[0]) + 0 * x

    return gradient


def hooked(do):
    def f(x):
        y = x * 1
        if y.requires_grad:
            y.register_hook(do)
        return y * 2

    return f


def answered(do):
    class Own:
        def __init__(self, x) -> None:
            self.x = x

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            return do(func(*(a.x if isinstance(a, cls) else a for a in args), **(kwargs or {})))

    return lambda x: torch.mul(Own(x), 2)  # pyright: ignore[reportArgumentType]


def distant(do):
    return lambda x: (
        x
        * F.triplet_margin_with_distance_loss(
            x[None], x[None] * 2, x[None] * 3, distance_function=lambda a, b: do(a - b).abs().sum(-1)
        )
    )


PLACES = {
    "a forward pass": lambda do: function_of(forward=do),
    "under torch.func.grad": lambda do: (
        lambda x: torch.func.grad(lambda y: function_with_setup(forward=do)(y).square().sum())(x)
    ),
    "under torch.func.vmap": lambda do: (
        lambda x: torch.func.vmap(function_with_setup(forward=do), randomness="same")(x.view(4, 4)).view(-1)
    ),
    "a backward pass inside": lambda do: inner(function_of(backward=do)),
    "backward() inside": lambda do: inner(function_of(backward=do), by_backward=True),
    "a hook inside": lambda do: inner(hooked(do)),
    "a class": answered,
    "a distance": distant,
}
LATER = {
    "a backward pass": lambda do: function_of(backward=do),
    "a backward pass, set up": lambda do: function_with_setup(backward=do),
    "a hook": hooked,
    "custom_gradient": lambda do: ft.custom_gradient(lambda x: (x * 1, do)),
}


def loss_of(place, key, act=None, module=None):
    model = nn.from_module(module or Does(place, act))
    params, buffers = model.init(random.key(0), X)
    return loss_for(model, buffers, key), params


def loss_for(model, buffers, key):
    def loss(params):
        y, after = model.apply(params, buffers, X, nn.training(key))
        return (y * WEIGHTS).sum(), after

    return loss


def leaves_of(value):
    return torch.cat([leaf.reshape(-1) for leaf in ft.tree.leaves(value)])


@pytest.mark.parametrize("place", [*PLACES, *LATER])
def test_draws_come_from_the_key(place):
    made = {**PLACES, **LATER}[place](drop)
    seen = []
    for key in (random.key(1), random.key(2)):
        loss, params = loss_of(made, key)
        run = ft.value_and_grad(loss, has_aux=True)
        before = torch.get_rng_state()
        first, again, compiled = run(params), run(params), ft.jit(run)(params)
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(leaves_of(first), leaves_of(again))
        torch.testing.assert_close(leaves_of(compiled), leaves_of(first))
        seen.append(leaves_of(first))
    assert not torch.equal(*seen)


def masked(x):
    mask = drop(torch.ones_like(x))
    return x.sin() * mask, lambda cotangent: cotangent * x.cos() * mask


TWICE = {
    "custom_gradient": lambda x: ft.custom_gradient(masked)(x),
    "custom_gradient, then another draw": lambda x: drop(ft.custom_gradient(masked)(drop(x))),
    "remat": lambda x: ft.remat(lambda v: drop(v.sin()))(x),
    "remat between draws": lambda x: drop(ft.remat(lambda v: drop(drop(v.sin())))(drop(x))),
    "remat in remat": lambda x: ft.remat(lambda v: drop(ft.remat(lambda u: drop(u.sin()))(v)))(x),
    "checkpoint": lambda x: drop(checkpoint(lambda v: drop(v.sin()), x, use_reentrant=False)),
    "remat under vmap": lambda x: ft.vmap(ft.remat(lambda v: drop(v.sin())))(x.view(4, 4)).view(-1),
    "a gradient of a gradient": lambda x: ft.grad(lambda v: ft.remat(lambda u: drop(u.sin()))(v).square().sum())(x),
}


@pytest.mark.parametrize("twice", TWICE)
def test_what_runs_again_in_a_backward_pass_draws_the_same_numbers(twice):
    loss, params = loss_of(TWICE[twice], random.key(3))
    value = lambda params: loss(params)[0]  # noqa: E731
    along = torch.linspace(1.0, -1.0, N, dtype=torch.float64)
    step = 1e-6
    ahead, behind = (value(ft.tree.map(lambda w, s=s: w + s * along, params)) for s in (step, -step))
    expected = (ahead - behind) / (2 * step)
    for gradient in (ft.grad(value), ft.jit(ft.grad(value))):
        torch.testing.assert_close((leaves_of(gradient(params)) * along).sum(), expected, rtol=1e-6, atol=1e-7)
    assert value(params) == ft.jit(value)(params)


@pytest.mark.parametrize("twice", ["custom_gradient", "remat", "checkpoint", "remat between draws"])
def test_so_it_does_for_each_key_of_a_vmap(twice):
    keys = random.split(random.key(5), 3)
    model = nn.from_module(Does(TWICE[twice]))
    params, buffers = model.init(random.key(0), X)

    def gradient(key):
        return leaves_of(ft.grad(lambda params: loss_for(model, buffers, key)(params)[0])(params))

    expected = torch.stack([gradient(key) for key in keys])
    torch.testing.assert_close(ft.vmap(gradient)(keys), expected)
    torch.testing.assert_close(ft.jit(ft.vmap(gradient))(keys), expected)


APART = {
    "a scan": lambda x: ft.scan(lambda c, _: (drop(c), c), x, torch.arange(3.0))[0],
    "a branch": lambda x: ft.cond(x.sum() > -9, lambda x: drop(x), lambda x: x, x),
}


@pytest.mark.parametrize("apart", APART)
def test_draws_in_what_is_traced_apart_are_refused(apart):
    loss, params = loss_of(APART[apart], random.key(3))
    with pytest.raises(HiddenRandomness, match=r"draws random numbers \(dropout\) in what is traced apart"):
        ft.jit(ft.grad(lambda params: loss(params)[0]))(params)


ACTS = {
    "a parameter": (lambda own, x, y: own.w.data.add_(1), "changes the parameter w in place"),
    "an element": (lambda own, x, y: own.w.detach().__setitem__(0, 9.0), "changes the parameter w in place"),
    "the input": (lambda own, x, y: x.detach().add_(1), "changes its input in place"),
    "the original": (lambda own, x, y: ORIGINAL[0].w.sum(), "uses the tensor w of the original"),
}
ORIGINAL = [Does(None)]


def acting(act):
    def do(own, x, y):
        act(own, x, y)
        return y

    return do


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("place", [*PLACES, *LATER])
def test_what_is_refused_elsewhere_is_refused_there(place, act):
    do, words = ACTS[act]
    ORIGINAL[0] = Does({**PLACES, **LATER}[place], acting(do))
    loss, params = loss_of(None, random.key(1), module=ORIGINAL[0])
    before = leaves_of(params).clone(), X.clone()
    run = ft.value_and_grad(loss, has_aux=True)
    with pytest.raises(InvalidArgument, match=words):
        run(params)
    with pytest.raises((InvalidArgument, SideEffect)):
        ft.jit(run)(params)
    assert torch.equal(leaves_of(params), before[0]) and torch.equal(X, before[1])


CHANGES = {
    "add_": lambda own, x, y: own.seen.add_(1),
    "data": lambda own, x, y: own.seen.data.add_(1),
    "batch_norm": lambda own, x, y: F.batch_norm(
        torch.ones(2, N, dtype=X.dtype), own.seen, torch.ones(N, dtype=X.dtype), training=True
    ),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("place", [place for place in PLACES if place != "a distance"])
def test_a_buffer_that_changes_there_is_returned(place, change):
    loss, params = loss_of(PLACES[place], random.key(1), acting(CHANGES[change]))
    expected = torch.full((N,), 0.1 if change == "batch_norm" else 1.0, dtype=X.dtype)
    for run in (loss, ft.jit(loss)):
        torch.testing.assert_close(run(params)[1]["seen"], expected)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("place", LATER)
def test_a_buffer_that_changes_when_the_module_has_returned_is_refused(place, change):
    loss, params = loss_of(LATER[place], random.key(1), acting(CHANGES[change]))
    run = ft.value_and_grad(loss, has_aux=True)
    for one in (run, ft.jit(run)):
        with pytest.raises(InvalidArgument, match="the buffer seen is changed in a backward pass"):
            one(params)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # by torch.compile
def test_an_apply_that_was_kept_is_followed_and_compiled_by_pytorch():
    class Own(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, cotangent):  # pyright: ignore[reportIncompatibleMethodOverride]
            return drop(cotangent)

    kept = Own.apply
    loss, params = loss_of(lambda x: kept(x), random.key(1))
    run = ft.grad(lambda params: loss(params)[0])
    assert torch.equal(run(params)["w"], run(params)["w"]) and 0 < (run(params)["w"] == 0).sum() < N
    compiled = torch.compile(lambda x: kept(x) * 2, backend="eager", fullgraph=True)
    assert torch.equal(compiled(X), X * 2)


def test_a_function_of_ones_own_stays_itself_in_an_application():
    function = function_of(backward=lambda g: g * 3)
    loss, params = loss_of(function, random.key(1))
    torch.testing.assert_close(ft.grad(lambda p: loss(p)[0])(params)["w"], 3 * X * WEIGHTS)
    x = torch.ones(2, requires_grad=True)
    function(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [3.0, 3.0]


ROWS = {
    "dropout": drop,
    "rand": lambda row: torch.rand(4) + 0 * row,
    "bernoulli_": lambda row: torch.empty_like(row).bernoulli_(0.5),
    "normal_": lambda row: torch.empty(4).normal_() > 0 * row,
    "a function": function_with_setup(forward=drop),
    "remat": lambda row: ft.remat(drop)(row),
}


@pytest.mark.parametrize("draw", ROWS)
def test_the_rows_of_a_vmap_draw_other_numbers_where_it_says_so(draw):
    def rows(randomness, key):
        place = lambda x: torch.func.vmap(ROWS[draw], randomness=randomness)(torch.ones(16, 4, dtype=X.dtype))  # noqa: E731
        model = nn.from_module(Does(lambda x: place(x).reshape(-1)))
        params, buffers = model.init(random.key(0), X)
        run = lambda key: model.apply(params, buffers, X, nn.training(key))[0].view(16, 4)  # noqa: E731
        assert torch.equal(ft.jit(run)(key), run(key)) and torch.equal(run(key), run(key))
        return run(key), ft.vmap(run)(key[None])[0]

    for same in rows("same", random.key(1)):
        assert all(torch.equal(row, same[0]) for row in same)
    different, mapped = rows("different", random.key(1))
    assert len({tuple(row.tolist()) for row in different}) > 4  # of 16 masks of four bits
    assert torch.equal(different, mapped)
    assert not torch.equal(different, rows("different", random.key(2))[0])
