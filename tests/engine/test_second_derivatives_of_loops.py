"""Loops, choices and what is computed again, in each other, under second derivatives in jit, against autograd."""

import pytest
import torch
from torch.autograd import functional

import functrain as ft
from tests.engine.nesting import nodes

W = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
X = torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64)
V = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)


def rows(x):
    return torch.stack([x, x * V, x * x])


def loop(x, xs=W):
    return (ft.scan(lambda h, r: (torch.sin(h + r.sum() * x), h.sum()), x, xs)[0] ** 3).sum()


def remat_in_scan(x, xs=W):
    """What is closed over, and an argument, of a step that is computed again."""
    step = ft.remat(lambda h, r, y: torch.sin(h + r.sum() * x) * y)
    return (ft.scan(lambda h, r: (step(h, r, x), h.sum()), x, xs)[0] ** 3).sum()


def cond_in_scan(x, xs=W):
    def step(h, r):
        return ft.cond(h.sum() > 0.3, lambda h: torch.sin(h + r.sum() * x), lambda h: h * x + 1, h), h.sum()

    return (ft.scan(step, x, xs)[0] ** 3).sum()


def cond_in_cond(x):
    def inner(x):
        return ft.cond(x[0] > 0, lambda x: (x**3).sum(), lambda x: x.sum(), x)

    return ft.cond(x.sum() > 0, inner, lambda x: x.prod(), x)


def while_in_scan(x, xs=W):
    def step(h, r):
        h = ft.while_loop(lambda h: h.sum() < 3, lambda h: h * x * x + h + 0.4, h * r.sum(), max_steps=8)
        return h, h.sum()

    return (ft.scan(step, x, xs)[0] ** 3).sum()


def cond_in_while(x):
    def step(h):
        return ft.cond(h.sum() > 1, lambda h: h * x * x + h + 0.4, lambda h: h * h + 0.3, h)

    return (ft.while_loop(lambda h: h.sum() < 5, step, x, max_steps=12) ** 3).sum()


def scan_in_cond(x, xs=W):
    return ft.cond(x.sum() > 0, lambda x: loop(x, xs), lambda x: x.prod(), x)


def scan_in_scan(x, xs=W):
    return (ft.scan(lambda h, r: (ft.scan(lambda c, y: (torch.tanh(c * x + y * h), None), h, W)[0], None), x, xs)[0] ** 3).sum()  # fmt: skip  # noqa: E501


PROGRAMS = {f.__name__: f for f in (loop, remat_in_scan, cond_in_scan, cond_in_cond, while_in_scan, cond_in_while, scan_in_cond, scan_in_scan)}  # fmt: skip  # noqa: E501
DERIVATIVES = {
    "hessian": lambda f: ft.hessian(f),
    "jacfwd(jacfwd": lambda f: ft.jacfwd(ft.jacfwd(f)),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_second_derivatives_are_those_of_autograd(program):
    f = PROGRAMS[program]
    expected = functional.hessian(f, X)
    for derivative in DERIVATIVES.values():
        torch.testing.assert_close(ft.jit(derivative(f))(X), expected)
    torch.testing.assert_close(ft.jit(lambda x: ft.hvp(f, (x,), (V,))[0])(X), expected @ V)


@pytest.mark.parametrize("program", PROGRAMS)
def test_so_are_those_of_a_batch(program):
    f = PROGRAMS[program]
    expected = torch.stack([functional.hessian(f, x) for x in rows(X)])
    torch.testing.assert_close(ft.jit(ft.vmap(ft.hessian(f)))(rows(X)), expected)
    product = ft.jit(ft.vmap(lambda x: ft.hvp(f, (x,), (V,))[0]))(rows(X))
    torch.testing.assert_close(product, expected @ V)


@pytest.mark.parametrize("program", [f for f in PROGRAMS if f not in ("cond_in_cond", "cond_in_while")])
@pytest.mark.parametrize("derivative", ["hvp", "vmap(hessian"])
def test_the_graph_does_not_depend_on_the_length(program, derivative):
    def count(n):
        f, xs = PROGRAMS[program], torch.ones(n, 3, dtype=torch.float64)
        made = {
            "hvp": lambda x, xs: ft.hvp(lambda x: f(x, xs), (x,), (V,)),
            "vmap(hessian": lambda x, xs: ft.vmap(ft.hessian(lambda x: f(x, xs)))(rows(x)),
        }[derivative]
        return nodes(ft.jit(made).lower(X, xs).graph)

    assert count(10) == count(1000)


SMOOTH = lambda x: torch.sin(x) ** 2 * x  # noqa: E731


@pytest.mark.parametrize("jit", [lambda f: f, ft.jit], ids=["eager", "jit"])
@pytest.mark.parametrize(
    "derivative",
    [
        lambda f: ft.jacfwd(ft.jacfwd(f)),
        lambda f: ft.jacfwd(ft.jacfwd(ft.jacfwd(f))),
        lambda f: ft.jacfwd(ft.vmap(ft.jacfwd(f))),
        lambda f: ft.jacfwd(ft.jacrev(ft.jacfwd(f))),
        lambda f: lambda x: ft.jvp(lambda y: ft.jvp(f, (y,), (V,))[1], (x,), (V,))[1],
    ],
)
def test_forward_derivatives_of_forward_derivatives_of_what_is_computed_again(jit, derivative):
    # PyTorch gives zeros here for an `autograd.Function` whose `jvp` does nothing about it.
    torch.testing.assert_close(jit(derivative(ft.remat(SMOOTH)))(X), derivative(SMOOTH)(X))


def test_a_write_to_a_part_in_a_step():
    # The tangent of what is written has the memory of a vmapped view, with gaps.
    def f(scan):
        def step(carry, r):
            made = (carry @ (W[:3] * r).t()).clone()
            made[0] += carry[1]
            return made, (carry, made.t() if made.dim() > 1 else made)

        def run(x):
            last, (ys, zs) = scan(step, x * 2, W)
            return (last**2).sum() + (ys * zs).sum()

        return run

    torch.testing.assert_close(ft.jit(ft.hessian(f(ft.scan)))(X), functional.hessian(f(ft.fold), X))
