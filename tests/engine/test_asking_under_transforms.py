"""Values that Python asks for, and parameters that code makes, under transforms inside jit: eager's, or refused."""

import pytest
import torch
import torch.nn.functional as F

import functrain as ft
from functrain import nn
from functrain.errors import NotTraceable, TreeMismatch

CLOSED = torch.tensor([1.0, 2.0])
ROWS = torch.tensor([[1.0, -2.0], [0.5, 3.0], [2.0, 1.0]])
INSIDE = {
    "grad": ft.grad,
    "torch.func.grad": torch.func.grad,
    "hessian": lambda f: lambda x: ft.hessian(f)(x).sum(0),
}
CODE = {
    "tolist": lambda x: (x**2 * CLOSED.tolist()[1]).sum(),
    "numpy": lambda x: (x**2 * float(CLOSED.numpy()[1])).sum(),
    "item": lambda x: (x**2 * CLOSED[1].item()).sum(),
    "bool": lambda x: (x**2).sum() * 2 if (CLOSED > 1).any() else x.sum(),
}


@pytest.mark.parametrize("inside", INSIDE)
@pytest.mark.parametrize("code", CODE)
def test_values_of_what_is_closed_over(code, inside):
    def plain(x):
        return (x**2 * 2).sum()

    f = INSIDE[inside](CODE[code])
    expected = torch.stack([INSIDE[inside](plain)(x) for x in ROWS])
    assert torch.equal(ft.jit(ft.vmap(f))(ROWS), expected) and torch.equal(ft.jit(f)(ROWS[0]), expected[0])


@pytest.mark.parametrize("transform", [ft.vmap, ft.grad, lambda f: ft.vmap(ft.grad(f))])
def test_values_of_an_argument_are_refused(transform):
    def f(x):
        return x.sum() * torch.tensor(x.detach().tolist()).sum()

    with pytest.raises(NotTraceable, match="Python looks at the values of a tensor"):
        ft.jit(transform(f))(ROWS if transform is not ft.grad else ROWS[0])


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # PyTorch's own, of a vmap that runs each row
@pytest.mark.parametrize("lengths", [((5, 4), (2, 1)), torch.tensor([[5, 4], [2, 1]])], ids=["tuple", "tensor"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_ctc_loss_of_each_row(lengths, reduction):
    x = torch.randn(3, 5, 2, 4, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    targets = torch.tensor([[1, 2], [3, 1]])

    def loss(x):
        return F.ctc_loss(x, targets, lengths[0], lengths[1], reduction=reduction)

    expected = torch.stack([ft.grad(loss)(row) for row in x])  # plain autograd
    for g in (ft.vmap(ft.grad(loss)), lambda x: ft.grad(lambda x: ft.vmap(loss)(x).sum())(x)):
        torch.testing.assert_close(ft.jit(g)(x), expected)


def test_a_parameter_made_inside():
    f = ft.grad(lambda x: (torch.nn.Parameter(x * 1) * x).sum())
    assert torch.equal(ft.jit(ft.vmap(f))(ROWS), ft.vmap(f)(ROWS))


class Swapping(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, x):
        self.layer.weight = torch.nn.Parameter(self.layer.weight * 2)
        return self.layer(x)


@pytest.mark.parametrize("jit", [lambda f: f, ft.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("transform", [lambda f: f, ft.grad, lambda f: ft.vmap(ft.grad(f), (None, 0))])
def test_a_module_that_swaps_its_parameters_is_refused_in_words(transform, jit):
    model = nn.from_module(Swapping())
    params, buffers = model.init(ft.random.key(0), ROWS)
    with pytest.raises(TreeMismatch, match=r"removes the parameter layer\.weight, or puts something else in its place"):
        jit(transform(lambda p, x: model.apply(p, buffers, x)[0].sum()))(params, ROWS)


def test_spectral_norm_of_each_row():
    model = nn.from_module(torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(2, 2)))
    params, buffers = model.init(ft.random.key(0), ROWS)

    def loss(p, x):
        y, after = model.apply(p, buffers, x, nn.training(ft.random.key(1)))
        return (y**2).sum(), after

    per_row = ft.vmap(ft.grad(loss, has_aux=True), (None, 0))
    rows = [ft.grad(loss, has_aux=True)(params, x) for x in ROWS]
    expected = ft.tree.stack(rows)
    for g in (per_row, ft.jit(per_row)):
        assert not ft.tree.differences(g(params, ROWS), expected, rtol=1e-5, atol=1e-6)
