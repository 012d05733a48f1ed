"""A scan under any two and three transforms: equal to the fold, in a graph of one size for 10 steps and 1,000."""

import pytest
import torch

import functrain as ft
from tests.engine.nesting import nested, nodes, oracle, orders

W = torch.tensor([[0.5, -0.3, 0.1], [0.2, 0.6, -0.4], [-0.1, 0.3, 0.7]])
X = torch.tensor([0.3, -0.5, 0.8])


ALL_ROWS = {n: torch.randn(n, 3, generator=torch.Generator().manual_seed(n)) for n in (4, 10, 1000)}


def recurrent(loop, n=4):
    """A recurrent layer; what is differentiated is its weight, closed over, its first carry and its xs."""

    def f(x):
        w, xs = W * x, ALL_ROWS[n] * x

        def step(carry, row):
            h, count = carry
            h = torch.tanh(h @ w + row)
            return (h, count + 1), {"sum": h.sum() * count, "none": h * 2}

        (h, _), ys = loop(step, (x, torch.tensor(0)), xs)
        return (h * x).sum() + (ys["sum"] ** 2).sum() + ys["none"][-1].sum()

    return f


ALL = [*orders(2), *orders(3)]


@pytest.mark.parametrize("order", ALL)
def test_equals_the_fold(order):
    torch.testing.assert_close(nested(order, recurrent(ft.scan))(X), oracle(order, recurrent(ft.fold), X))


@pytest.mark.parametrize("order", [order for order in ALL if order.startswith("jit")])
def test_the_graph_does_not_depend_on_the_length(order):
    inner = order.removeprefix("jit(")
    counts = {n: nodes(ft.jit(nested(inner, recurrent(ft.scan, n))).lower(X).graph) for n in (10, 1000)}
    assert counts[10] == counts[1000]
