"""Laws of scans inside transforms: the bits of the fold, what gradients keep, generated steps, threads."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import functrain as ft
from functrain import tree
from functrain.engine.graph.scan_node import loops
from tests.engine.nesting import nested, nodes, oracle
from tests.engine.scanned_programs import OURS, PLAIN, PROGRAMS

X = torch.tensor([0.3, -0.5, 0.8])
W = torch.tensor([[0.5, -0.3, 0.1], [0.2, 0.6, -0.4], [-0.1, 0.3, 0.7]])


def kept(f, *args):
    """The number of elements that the loops of a graph put out, beside their carries."""
    graph = ft.jit(f).lower(*args).graph
    made = [node.meta["val"][node.target.kind.counts[0] :] for node in loops(graph)]
    return sum(t.numel() for ys in made for t in ys)


def chain(wrap, n):
    def step(h, row):
        for _ in range(3):
            h = torch.tanh(torch.exp(-h) * row)
        return h, None

    return ft.grad(lambda h: ft.scan(wrap(step), h, torch.ones(n, 3))[0].sum())


@pytest.mark.parametrize("n", [100, 1000])
def test_remat_keeps_about_as_many_carries_as_the_root_of_the_length(n):
    plain, few = kept(chain(lambda f: f, n), X), kept(chain(ft.remat, n), X)
    assert plain >= 6 * 3 * n
    assert few <= 2 * 3 * math.isqrt(n) + 6
    torch.testing.assert_close(ft.jit(chain(ft.remat, n))(X), chain(lambda f: f, n)(X))


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 24, 25, 26])
def test_remat_of_any_length(n):
    def loss(wrap):
        def inner(x):
            def one(carry, row):
                h, count = carry
                h = torch.sin(h * x + row)
                return (h, count + 1), h * count

            (h, _), ys = ft.scan(wrap(one), (x, torch.tensor(0)), torch.linspace(-1, 1, 3 * n).reshape(n, 3))
            return (h**2).sum() + (ys * torch.arange(n)[:, None]).sum()

        return inner

    torch.testing.assert_close(ft.jit(ft.grad(loss(ft.remat)))(X), ft.grad(loss(lambda f: f))(X))


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("by", [ft.grad, torch.func.grad])
def test_lengths_zero_and_one(n, by):
    def f(loop):
        def loss(x):
            h, ys = loop(lambda h, r: (torch.sin(h * x + r), h * r), x * 2, W[:n])
            return h.sum() + (0 if ys is None else (ys**2).sum())

        return loss

    torch.testing.assert_close(ft.jit(by(f(ft.scan)))(X), by(f(ft.fold))(X))


def test_the_gradient_has_the_bits_of_the_fold():
    """Where each step uses each closed-over tensor once, the sums are made in autograd's order."""

    def f(loop):
        def loss(w, h, xs):
            h, ys = loop(lambda h, r: (torch.tanh(h @ w + r), h * r), h, xs)
            return h.sum() + (ys**2).sum()

        return loss

    gen = torch.Generator().manual_seed(0)
    args = torch.randn(3, 3, generator=gen), torch.randn(2, 3, generator=gen), torch.randn(7, 2, 3, generator=gen)
    for argnum in range(3):
        expected = ft.value_and_grad(f(ft.fold), argnum)(*args)
        assert tree.equal(ft.jit(ft.value_and_grad(f(ft.scan), argnum), backend="replay")(*args), expected)


@pytest.mark.parametrize("by", ["grad", "jacrev", "vmap(grad"])
def test_gradients_of_weights_that_are_multiplied_after_the_loop(by):
    gen = torch.Generator().manual_seed(0)
    w, v, xs = (torch.randn(s, generator=gen) / 3 for s in ((16, 16), (8, 16), (5, 2, 8)))

    def f(loop):
        def loss(p, xs):
            def step(h, x):
                a = torch.nn.functional.linear(h, p["w"], p["b"])
                return torch.tanh(a + x @ p["v"]), (h @ p["w"].t()).sum()

            h, ys = loop(step, torch.ones(2, 16), xs)
            return (h**2).sum() + (ys**2).sum() / 9

        return loss

    def gradient(loop):
        if by == "jacrev":
            return ft.jacrev(lambda p, xs: torch.stack([f(loop)(p, xs), f(loop)(p, xs * 2)]))
        return ft.vmap(ft.grad(f(loop)), (None, 0)) if by == "vmap(grad" else ft.grad(f(loop))

    args = {"w": w, "v": v, "b": w[0]}, torch.stack([xs, -xs]) if by == "vmap(grad" else xs
    close = tree.differences(ft.jit(gradient(ft.scan))(*args), gradient(ft.fold)(*args), rtol=1e-4, atol=1e-5)
    assert not close, close


def test_gradients_of_xs_that_are_no_rows_in_a_row():
    xs = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))

    def f(loop):
        return lambda xs: (loop(lambda h, r: (torch.sin(h + r), h * r), X, xs.t().flip(0))[1] ** 2).sum()

    torch.testing.assert_close(ft.jit(ft.grad(f(ft.scan)))(xs), ft.grad(f(ft.fold))(xs))


def test_autocast_around_a_scan_reaches_its_backward_pass():
    def f(loop):
        def loss(w):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                h, _ = loop(lambda h, r: ((torch.tanh(h @ w) + r).float(), None), torch.ones(1, 3), W[:, None])
            return (h**2).sum()

        return loss

    def twice(loop):
        return ft.grad(lambda w: (ft.grad(f(loop))(w) ** 2).sum())

    # Autograd adds the gradients of the steps in bfloat16, the loop back in float32.
    torch.testing.assert_close(ft.jit(ft.grad(f(ft.scan)))(W), ft.grad(f(ft.fold))(W), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(ft.jit(twice(ft.scan))(W), twice(ft.fold)(W), rtol=3e-2, atol=3e-2)


def test_a_donated_state_is_carried_through_a_scan_that_differentiates_inside():
    def epoch(w, xs):
        return ft.scan(lambda w, x: (w - 0.1 * ft.grad(lambda w: ((w * x).sum() - 1) ** 2)(w), None), w, xs)[0]

    expected = epoch(X, W)
    assert torch.equal(ft.jit(epoch, donate=0)(X.clone(), W), ft.jit(epoch)(X, W))
    torch.testing.assert_close(ft.jit(epoch, donate=0)(X.clone(), W), expected)


def test_what_is_handed_straight_to_torch_func_is_refused():
    def f(x):
        return ft.scan(lambda h, r: (h * torch.func.grad(lambda y: (y * r).sum())(x), None), X, W)[0].sum()

    with pytest.raises(ft.errors.InvalidArgument, match="hands it straight to a transform of torch"):
        ft.jit(torch.func.grad(f))(X)


OPS = {
    "sin": torch.sin,
    "square": lambda a: a * a / 2,
    "max": lambda a: a.max() + 0 * a,
    "flip": lambda a: a.flip(0),
    "cumsum": lambda a: a.cumsum(0) / 3,
    "write": lambda a: a.clone().mul_(0.5),
    "view": lambda a: a.reshape(3, 1).expand(3, 2).sum(1) / 2,
    "detach": lambda a: a + a.detach(),
    "where": lambda a: torch.where(a > 0, a, a * 0.3),
    "softmax": lambda a: a.softmax(0),
}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(sorted(OPS)), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=5),
    st.integers(1, 4),
    st.sampled_from(["grad", "vmap", "vmap(grad", "grad(grad"]),
)
def test_generated_steps(ops, n, order):
    def step(x):
        def one(carry, row):
            values = [carry[0], carry[1], row, x]
            for name, a, b in ops:
                values.append(OPS[name](values[a] + values[-1 - b]))
            return (values[-1], values[0] * 0.5 + values[-2] * 0.1), values[-1].sum()

        return one

    def f(loop):
        def loss(x):
            (a, b), ys = loop(step(x), (x, W[0] * x), W.repeat(2, 1)[:n])
            return (a * b).sum() + (ys**2).sum()

        return loss

    plain, ours = f(ft.fold), f(ft.scan)
    by = {
        "grad": lambda f: ft.grad(f)(X),
        "vmap": lambda f: ft.vmap(f)(W),
        "vmap(grad": lambda f: ft.vmap(ft.grad(f))(W),
        "grad(grad": lambda f: ft.grad(lambda x: (ft.grad(f)(x) ** 2).sum())(X),
    }[order]
    got = ft.jit(lambda _: by(ours))(X)
    torch.testing.assert_close(got, by(plain), rtol=1e-3, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("order", ["grad", "vmap(grad"])
def test_two_threads_give_the_same(order):
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            f = PROGRAMS["recurrent"]
            torch.testing.assert_close(ft.jit(nested(order, f(OURS, 10)))(X), oracle(order, f(PLAIN, 10), X))
    finally:
        torch.set_num_threads(before)


def test_compiled_by_inductor_it_is_the_same():
    f = ft.grad(PROGRAMS["recurrent"](OURS, 4))
    torch.testing.assert_close(ft.jit(f, backend="inductor")(X), f(X), rtol=1e-4, atol=1e-5)
    assert nodes(ft.jit(f).lower(X).graph) < 150
