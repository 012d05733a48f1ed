"""Tensors that share memory without being one tensor: PyTorch changes both at once, values would come apart."""

import re

import pytest
import torch
from torch import Tensor
from torch import nn as tnn

from functrain import nn, random
from functrain.errors import InvalidArgument

X = torch.ones(2, 4)


class Shares(tnn.Module):
    def __init__(self, share) -> None:
        super().__init__()
        self.a, self.b = tnn.Linear(4, 4), tnn.Linear(4, 4)
        self.register_buffer("mean", torch.zeros(2, 4))
        share(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)) + self.mean


REFUSED = {
    "two parameters": (lambda m: setattr(m.b.weight, "data", m.a.weight.data), "a.weight and b.weight"),
    "a part of one": (lambda m: setattr(m, "c", tnn.Parameter(m.a.weight.data[:2])), "c and a.weight"),
    "a transposed one": (lambda m: setattr(m, "c", tnn.Parameter(m.a.weight.data.T)), "c and a.weight"),
    "a buffer of one": (lambda m: m.register_buffer("c", m.a.weight.detach()), "a.weight and c"),
    "two buffers": (lambda m: m.register_buffer("c", m.mean[0]), "mean and c"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_registered_tensors(name):
    share, words = REFUSED[name]
    with pytest.raises(InvalidArgument, match=f"{re.escape(words)} share memory and are two tensors"):
        nn.from_module(Shares(share))


def columns(module: Shares) -> None:
    whole = torch.randn(4, 8)
    module.a.weight, module.b.weight = tnn.Parameter(whole[:, ::2]), tnn.Parameter(whole[:, 1::2])


def frozen(module: Shares) -> None:
    module.b.weight.data = module.a.weight.data
    for parameter in module.parameters():
        parameter.requires_grad_(False)


APART = {
    "one tensor": lambda m: setattr(m.b, "weight", m.a.weight),
    "rows": lambda m: torch.nn.utils.vector_to_parameters(torch.randn(40), m.parameters()),
    "columns": columns,
    "what is never changed": frozen,
}


@pytest.mark.parametrize("name", APART)
def test_one_tensor_and_tensors_with_no_element_in_common_are_taken(name):
    torch.manual_seed(0)
    module = Shares(APART[name])
    model = nn.from_module(module)
    assert torch.allclose(model.apply(*model.init(random.key(0), X), X)[0], module(X))


def test_what_is_kept_beside_them_is_refused_where_it_is_used():
    module = Shares(lambda m: setattr(m, "alias", m.a.weight.data))
    model = nn.from_module(module)
    values = model.init(random.key(0), X)
    assert torch.allclose(model.apply(*values, X)[0], module(X))  # which does not use it
    uses = nn.from_module(tnn.Sequential(Alias()))
    with pytest.raises(InvalidArgument, match=r"the forward uses .*alias, which shares memory with 0\.a\.weight"):
        uses.apply(*uses.init(random.key(0), X), X)


class Alias(Shares):
    def __init__(self) -> None:
        super().__init__(lambda m: setattr(m, "alias", m.a.weight.data))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.alias
