"""What is written another way for Inductor gives the same numbers."""

import pytest
import torch

from functrain.engine.backends.inductor.workarounds import respell
from functrain.engine.tracing.to_graph import trace

aten = torch.ops.aten


def respelled(f, *args):
    gm = trace(lambda *x: [f(*x)], list(args)).gm
    respell(gm.graph)
    gm.recompile()
    return gm


def gelu(x):
    return aten.gelu.default(x, approximate="tanh")


def slope(x):
    return aten.gelu_backward.default(torch.ones_like(x), x, approximate="tanh")


@pytest.mark.parametrize("f", [gelu, slope])
def test_gelu_by_the_logistic_function_is_gelu(f):
    x = torch.linspace(-12, 12, 20_001)
    gm = respelled(f, x)
    assert not any("gelu" in str(node.target) for node in gm.graph.nodes)
    torch.testing.assert_close(gm(x)[0].double(), f(x.double()), atol=3e-6, rtol=0)


def test_gelu_at_the_ends():
    x = torch.tensor([-torch.inf, -1e20, -50.0, -0.0, 50.0, 1e20, torch.inf, torch.nan])
    torch.testing.assert_close(respelled(gelu, x)(x)[0], gelu(x), equal_nan=True)


@pytest.mark.parametrize("f", [lambda x: aten.gelu.default(x), lambda x: gelu(x.double())])
def test_other_gelus_stay(f):
    x = torch.ones(3)
    assert any("gelu" in str(node.target) for node in respelled(f, x).graph.nodes)


def test_factors_become_multiplications():
    x = torch.arange(9.0).view(3, 3)
    gm = respelled(lambda x: torch.addmm(x, x, x, alpha=0.5, beta=2.0), x)
    assert not any(node.target is aten.addmm.default for node in gm.graph.nodes)
    torch.testing.assert_close(gm(x)[0], 2 * x + 0.5 * (x @ x))
