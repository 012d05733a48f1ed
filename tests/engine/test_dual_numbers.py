"""PyTorch's dual numbers around gradients and compiled functions: tangents pass through, as through torch.func."""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad

import functrain as ft
from functrain.errors import InvalidArgument

GENERATOR = torch.Generator().manual_seed(0)
W, X, T = (torch.randn(3, 3, dtype=torch.float64, generator=GENERATOR) for _ in range(3))


ft.jvp(torch.sin, (X,), (T,))  # the first one loads formulas of PyTorch's, which warn


def total(x):
    return torch.tanh(x @ W).sum()


def row_by_row(x):
    return ft.scan(lambda c, row: (torch.tanh(c + row @ W), None), X[0], x)[0].sum()


def squared(grad, f):
    return lambda x: (grad(f)(x) ** 2).sum()


FUNCTIONS = {
    "grad": (ft.grad(total), torch.func.grad(total)),
    "value": (lambda x: ft.value_and_grad(total)(x)[0], total),
    "aux": (ft.grad(lambda x: (total(x), x**2), has_aux=True), lambda x: (torch.func.grad(total)(x), x**2)),
    "closed over": (lambda x: ft.grad(lambda y: total(x * y))(X), lambda x: torch.func.grad(lambda y: total(x * y))(X)),
    "twice": (ft.grad(squared(ft.grad, total)), torch.func.grad(squared(torch.func.grad, total))),
    "remat": (ft.grad(ft.remat(total)), torch.func.grad(total)),
    "remat's value": (ft.remat(total), total),
    "jit": (ft.jit(total), total),
    "jit of grad": (ft.jit(ft.grad(total)), torch.func.grad(total)),
    "grad of jit": (ft.grad(ft.jit(total)), torch.func.grad(total)),
    "scan": (ft.jit(ft.grad(row_by_row)), torch.func.grad(row_by_row)),
}


def tangents(f, x, direction):
    with forward_ad.dual_level():
        duals = f(forward_ad.make_dual(x, direction))
        return ft.tree.map(lambda dual: forward_ad.unpack_dual(dual).tangent, duals)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_tangents_pass_through(name):
    f, wanted = FUNCTIONS[name]
    f(X)  # what is compiled already is not run either
    torch.testing.assert_close(tangents(f, X, T), torch.func.jvp(wanted, (X,), (T,))[1])


@pytest.mark.parametrize("name", ["grad", "twice", "aux", "grad of jit"])
def test_tangents_pass_through_where_all_is_traced(name):
    f, wanted = FUNCTIONS[name]
    inside = ft.jit(lambda x, direction: tangents(f, x, direction))
    torch.testing.assert_close(inside(X, T), torch.func.jvp(wanted, (X,), (T,))[1])


FORWARD = {
    "jvp": lambda x: ft.jvp(total, (x,), (T,))[1],
    "hvp": lambda x: ft.hvp(total, (x,), (T,))[0],
    "jacfwd": ft.jacfwd(total),
    "hessian": ft.hessian(total),
}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", FORWARD)
def test_a_level_by_hand_takes_no_second_one(name, jit):
    run = lambda x, direction: tangents(FORWARD[name], x, direction)  # noqa: E731
    with pytest.raises(InvalidArgument, match=rf"{name} inside torch.autograd.forward_ad.dual_level.*by grad or vjp"):
        (ft.jit(run) if jit else run)(X, T)
