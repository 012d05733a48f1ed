"""Functions of `torch.autograd.Function` that index: what a loop over the batch gives."""

import pytest
import torch
from torch.autograd import Function

import functrain as ft
from functrain.errors import InvalidArgument, SideEffect

X = torch.randn(2, 3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
K = torch.tensor([[0, 2, -2], [1, -1, 0]])
INDICES = {
    "a list apart": lambda k: (k, slice(None), [0, 2]),
    "two tensors apart": lambda k: (k, slice(None), torch.tensor([0, 2])),
    "axes of two": lambda k: (k, slice(1, None), torch.tensor([[1], [2]])),
    "a new axis between": lambda k: (0, k, None, [0, 2]),
}


def function_of(at, rule):
    """A quadratic function of x[at(k)], whose backward pass and forward derivative index, too."""

    class Squares(Function):
        generate_vmap_rule = rule == "generated"

        @staticmethod
        def forward(x, k):
            return x[at(k)] ** 2

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def backward(ctx, cotangent):  # pyright: ignore[reportIncompatibleMethodOverride]
            x, k = ctx.saved_tensors
            gradient = torch.zeros_like(x) * cotangent.sum()
            gradient[at(k)] = 2 * x[at(k)] * cotangent
            return gradient, None

        @staticmethod
        def jvp(ctx, tangent, _):  # pyright: ignore[reportIncompatibleMethodOverride]
            x, k = ctx.saved_tensors
            return 2 * x[at(k)] * tangent[at(k)]

    if rule == "own":
        Squares.vmap = staticmethod(by_rows(Squares))  # pyright: ignore[reportAttributeAccessIssue]
    return Squares.apply


def by_rows(function):
    def rule(info, dims, *args):
        rows = [a.expand(info.batch_size, *a.shape) if d is None else a.movedim(d, 0) for a, d in zip(args, dims)]  # noqa: B905
        return torch.stack([function.apply(*row) for row in zip(*rows, strict=True)]), 0

    return rule


def total(f):
    return lambda x, k: (f(x, k) ** 2).sum()


USES = {
    "value": lambda f: f,
    "grad": lambda f: lambda x, k: ft.grad(lambda x: total(f)(x, k))(x),
    "grad of grad": lambda f: lambda x, k: ft.grad(lambda x: ft.grad(lambda x: total(f)(x, k))(x).square().sum())(x),
    "jvp": lambda f: lambda x, k: ft.jvp(lambda x: f(x, k), (x,), (x.cos(),))[1],
    "remat": lambda f: lambda x, k: ft.grad(lambda x: total(ft.remat(f))(x, k))(x),
    "scan": lambda f: lambda x, k: ft.grad(lambda x: looped(f, x, k))(x),
    "cond": lambda f: lambda x, k: ft.cond(x.sum() > 0, f, lambda x, k: -f(x, k), x, k),
}


def looped(f, x, k):
    return ft.scan(lambda c, t: (c * t + 0.1 * f(c, k).sum(), f(c, k).sum()), x, torch.arange(1, 4) / 3)[1].sum()


def by_loop(f, x, k):
    return torch.stack([f(*row) for row in zip(x, k, strict=True)])


RUNS = {"vmap": ft.vmap, "jit": lambda f: ft.jit(ft.vmap(f)), "torch.func": lambda f: ft.jit(torch.func.vmap(f))}


@pytest.mark.parametrize("rule", ["generated", "own"])
@pytest.mark.parametrize(("use", "index"), [(u, "a list apart") for u in USES] + [("grad", i) for i in INDICES])
def test_the_numbers_are_those_of_a_loop(use, index, rule):
    f = USES[use](function_of(INDICES[index], rule))
    expected = by_loop(f, X[0], K[0])
    for run in RUNS.values():
        torch.testing.assert_close(run(f)(X[0], K[0]), expected)


@pytest.mark.parametrize("rule", ["generated", "own"])
def test_so_are_they_in_two_batches_and_where_others_differentiate(rule):
    f = function_of(INDICES["a list apart"], rule)
    gradient = USES["grad"](f)
    expected = torch.stack([by_loop(gradient, x, k) for x, k in zip(X, K, strict=True)])
    torch.testing.assert_close(ft.vmap(ft.vmap(gradient))(X, K), expected)
    around = lambda x: total(ft.vmap(f))(x, K[0])  # noqa: E731
    for derive in (ft.grad, torch.func.grad, lambda f: ft.grad(ft.remat(f)), lambda f: ft.jit(ft.grad(f))):
        torch.testing.assert_close(derive(around)(X[0]), expected[0])
    value, pull = torch.func.vjp(lambda x: ft.vmap(f)(x, K[0]), X[0])  # pyright: ignore[reportAssignmentType]
    torch.testing.assert_close(pull(2 * value)[0], expected[0])
    x = X[0].clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(around(x), x)[0], expected[0])


@pytest.mark.parametrize("run", RUNS)
def test_a_hook_of_a_gradient_sees_the_rows_of_a_loop(run):
    def f(x, k):
        def gradient(x):
            y = x * 1
            y.register_hook(lambda g: g * g[k, :, [0, 2]].sum(0)[:3].sum())
            return (y**3).sum()

        return ft.grad(gradient)(x)

    torch.testing.assert_close(RUNS[run](f)(X[0], K[0]), by_loop(f, X[0], K[0]))


class Product(Function):
    """x * w."""

    @staticmethod
    def forward(x, w):
        return x * w

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, cotangent):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, w = ctx.saved_tensors
        return cotangent * w, (cotangent * x).sum()


kept_from_before = Product.apply
V = torch.tensor([0.3, 0.7])
CLOSING = {
    "scan": lambda f, w: ft.scan(lambda c, _: (f(c, w), c), V, torch.arange(3.0))[0],
    "cond": lambda f, w: ft.cond(V.sum() > 0, lambda: f(V, w), lambda: V),
    "the operands of cond": lambda f, w: ft.cond(V.sum() > 0, f, lambda v, w: v, V, w),
    "while_loop": lambda f, w: ft.while_loop(lambda c: c.sum() < 9, lambda c: f(c, w), V, max_steps=9),
    "remat": lambda f, w: ft.remat(lambda v: f(v, w))(V),
}


@pytest.mark.parametrize("place", CLOSING)
@pytest.mark.parametrize("derive", [ft.grad, torch.func.grad])
def test_a_gradient_through_an_apply_that_was_taken_before(place, derive):
    def total(f):
        return lambda w: (CLOSING[place](f, w) ** 2).sum()

    w = torch.tensor(2.0)
    expected = ft.grad(total(torch.mul))(w)
    torch.testing.assert_close(ft.jit(derive(total(lambda *args: Product.apply(*args))))(w), expected)
    try:
        made = ft.jit(derive(total(kept_from_before)))(w)
    except InvalidArgument as error:  # PyTorch 2.14 makes no question of it that anyone could answer
        assert "an `apply` that was taken from its torch.autograd.Function before" in str(error)
        return
    torch.testing.assert_close(made, expected)


def test_what_comes_in_past_all_modes_and_is_differentiated_is_refused():
    def step(carry, _):
        with torch._C.DisableTorchFunction():
            return carry * CLOSED_OVER[0], carry

    CLOSED_OVER: list = []

    def f(w):
        CLOSED_OVER[:] = [w * 1]
        return ft.scan(step, V, torch.arange(3.0))[0].sum()

    with pytest.raises(InvalidArgument, match=r"hands a tensor that it closes over .* write F.apply\(...\)"):
        ft.jit(ft.grad(f))(torch.tensor(2.0))


def hooked_gradient(take):
    def f(x, w):
        def total(y):
            z = y * 1
            z.register_hook(lambda g: g * w)
            return (z**2).sum()

        return take(total)(x)

    return f


@pytest.mark.parametrize("take", [ft.grad, torch.func.grad])
@pytest.mark.parametrize("place", ["scan", "remat"])
def test_a_hook_that_closes_over_what_is_differentiated_further_out(place, take):
    def loop(x, w):
        for _ in range(2):
            x = x * w + 0.1 * 2 * x * w
        return x.sum()

    inner = hooked_gradient(take)
    once = lambda x, w: 0.1 * inner(x, w) + x * w  # noqa: E731
    outer = {
        "scan": lambda x, w: ft.scan(lambda c, _: (once(c, w), c), x, torch.arange(2.0))[0].sum(),
        "remat": lambda x, w: ft.remat(lambda x: once(once(x, w), w))(x).sum(),
    }[place]
    w = torch.tensor(0.8)
    expected = ft.grad(lambda w: loop(V, w))(w)
    torch.testing.assert_close(ft.jit(ft.grad(lambda w: outer(V, w)))(w), expected)
    several = torch.tensor([0.8, 0.5])
    rows = torch.stack([ft.grad(lambda w: loop(V, w))(one) for one in several])
    torch.testing.assert_close(ft.jit(ft.vmap(ft.grad(lambda w: outer(V, w))))(several), rows)


def test_what_would_show_that_a_row_is_a_copy_is_refused_in_them_too():
    class Through(Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x, k):
            y = x.clone()
            y[k].mul_(2)
            return y

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

    with pytest.raises(SideEffect, match="a row taken by a number that vmap maps over"):
        ft.vmap(Through.apply)(X[0], K[0])


class Weighed(Function):
    """x, whose gradient is weighed by k: the rows of a batch of k have one value and several gradients."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, k):
        return x * 1

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx, cotangent):  # pyright: ignore[reportIncompatibleMethodOverride]
        return cotangent * ctx.saved_tensors[0], None


@pytest.mark.parametrize("run", [lambda f: f, ft.jit], ids=["eager", "jit"])
def test_a_gradient_that_depends_on_the_row_where_the_value_does_not(run):
    stated = ft.custom_gradient(lambda x, k: (x * 1, lambda cotangent: (cotangent * k, None)))
    c, w = torch.arange(3.0), torch.tensor([2.0, 3, 5])
    for f in (Weighed.apply, stated):
        gradient = torch.func.grad(lambda x: (ft.vmap(lambda k: f(x, k))(w) * c).sum())  # noqa: B023
        assert run(gradient)(torch.tensor(1.0)) == c @ w
