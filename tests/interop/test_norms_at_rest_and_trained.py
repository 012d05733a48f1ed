"""Batch norm applied at rest and then trained in one forward: gradients are by the statistics that it had at rest."""

import torch
from torch import Tensor
from torch import nn as tnn

import functrain as ft
from functrain import nn, random, tree

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


class Both(tnn.Module):
    """A norm that looks at its input at rest first."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = tnn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        self.norm.eval()
        rest = self.norm(x)
        self.norm.train()
        return rest + self.norm(2 * x) * self.norm(x)


def formula(params, x: Tensor) -> Tensor:
    scale, shift = params["norm"]["weight"], params["norm"]["bias"]

    def trained(x: Tensor) -> Tensor:
        return (x - x.mean(0)) / torch.sqrt(x.var(0, unbiased=False) + 1e-5) * scale + shift

    return x / torch.sqrt(torch.tensor(1 + 1e-5)) * scale + shift + trained(2 * x) * trained(x)


def test_eager_compiled_and_mapped_agree_with_the_formula():
    module = Both()
    model = nn.from_module(module)
    params, buffers = model.init(random.key(0), X)
    params = tree.map(lambda p: p + 0.3, params)
    expected = ft.grad(lambda p: formula(p, X).square().sum())(params)

    def gradients(params, buffers):
        def loss(params):
            y, after = model.apply(params, buffers, X, nn.training(random.key(0)))
            return y.square().sum(), after

        return ft.grad(loss, has_aux=True)(params)

    module(X)  # the statistics that PyTorch has then
    _, statistics = nn.from_module(module).init(random.key(0), X)
    for way in (gradients, ft.jit(gradients, backend="aten")):
        got, after = way(params, buffers)
        assert tree.differences(got, expected, rtol=1e-4, atol=1e-4) == []
        assert tree.differences(after, statistics, rtol=1e-5, atol=1e-6) == []
    rows = tree.map(lambda t: torch.stack([t, t]), (params, buffers))
    mapped, after = tree.map(lambda t: t[1], ft.vmap(gradients)(*rows))
    assert tree.differences(mapped, expected, rtol=1e-4, atol=1e-4) == []
    assert tree.differences(after, statistics, rtol=1e-5, atol=1e-6) == []
