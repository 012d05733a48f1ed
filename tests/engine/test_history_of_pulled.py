"""What `vjp` pulls back has a history of autograd where it depends on what has one, and nowhere else."""

import pytest
import torch

import functrain as ft

G = torch.Generator().manual_seed(0)


@pytest.mark.parametrize("inner", [lambda f: f, ft.grad], ids=["value", "gradient"])
def test_what_is_pulled_back_has_a_history_only_where_an_argument_has(inner):
    """PyTorch 2.14.1 leaves one behind a gradient of batch norm; where autograd records, it is right."""
    x, w, scale = (torch.randn(size, generator=G, dtype=torch.float64) for size in ((7, 4), (4,), (4,)))
    scale.requires_grad_()

    def loss(w, by=1.0):
        return (torch.tanh(x * w * by) ** 3).mean()

    def normed(w):
        return (torch.nn.functional.batch_norm(x * w, None, None, training=True) ** 3).mean()

    value, pull = ft.vjp(inner(normed), w)
    ones = torch.ones_like(value)
    assert not value.requires_grad and not pull(ones)[0].requires_grad
    assert pull(ones.clone().requires_grad_())[0].requires_grad
    _, pull = ft.vjp(inner(lambda w: loss(w, scale)), w)
    pulled = pull(ones)[0]

    def by_hand(s):
        v = w.clone().requires_grad_()
        value = loss(v, s)
        if inner is ft.grad:
            (value,) = torch.autograd.grad(value, v, create_graph=True)
        return torch.autograd.grad(value, v, torch.ones_like(value), create_graph=True)[0]

    expected = torch.autograd.grad(by_hand(scale).sum(), scale)[0]
    torch.testing.assert_close(torch.autograd.grad(pulled.sum(), scale)[0], expected)
