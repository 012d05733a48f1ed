"""What remat and custom_gradient compute of views of their arguments, against autograd; views closed over."""

import pytest
import torch

import functrain as ft
from functrain.errors import InvalidArgument

X = torch.arange(6.0).reshape(2, 3) + 1
VIEWS = {
    "transposed": lambda x: x.mT @ x,
    "rows": lambda x: x[0] * 2,
    "each row": lambda x: sum(row**2 for row in x),
    "parts": lambda x: x.unbind(0)[1] ** 2 + x.chunk(2)[0].sin() + torch.split(x, 1)[1] ** 2,
    "view of a view": lambda x: x.t()[0][1:].view(-1) ** 2,
    "elsewhere": lambda x: x.as_strided((3,), (2,), 1) ** 2,
    "detached": lambda x: x * x.detach(),
    "a view returned": lambda x: x.t(),
    "itself": lambda x: x,
    "itself twice": lambda x: torch.stack([*map(torch.sin, remat_of_pair(x))]),
}


def remat_of_pair(x):
    return ft.remat(lambda x: (x, x))(x)


def stated(f):
    return ft.custom_gradient(lambda x: (f(x), lambda cotangent: torch.func.vjp(f, x)[1](cotangent)[0]))


WAYS = {
    "grad": ft.grad,
    "torch.func.grad": torch.func.grad,
    "jit(grad": lambda f: ft.jit(ft.grad(f)),
    "jit(torch.func.grad": lambda f: ft.jit(torch.func.grad(f)),
    "autograd": lambda f: lambda x: by_autograd(f, x),
}


def by_autograd(f, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(f(x), x)[0]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("wrap", [ft.remat, stated], ids=["remat", "custom_gradient"])
def test_gradients_are_those_of_autograd(view, wrap):
    f = VIEWS[view]
    expected = by_autograd(lambda x: f(x).sum(), X)
    for way in WAYS.values():
        for argument in (lambda x: x, lambda x: x[:, :], lambda x: x * 1):
            torch.testing.assert_close(way(lambda x, a=argument: wrap(f)(a(x)).sum())(X), expected)


def beside_a_view(wrap):
    def f(x):
        other = x[1:]
        return wrap(lambda row: (row * other).sum())(x[:1])

    return f


@pytest.mark.parametrize("gradient", [torch.func.grad, ft.grad])
def test_a_view_that_is_closed_over(gradient):
    assert torch.equal(gradient(beside_a_view(ft.remat))(X), X.flip(0))
    with pytest.raises(InvalidArgument, match="closes over a tensor that is being differentiated"):
        gradient(beside_a_view(stated))(X)
