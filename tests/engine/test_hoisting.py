"""Products of rows made before a loop: the numbers of the fold, and fewer operations in each step."""

import pytest
import torch
import torch.nn.functional as F

import functrain as ft
from functrain import tree
from functrain.engine.graph.passes.functionalizing import functionalize
from functrain.engine.graph.passes.hoisting import hoist
from functrain.engine.graph.scan_node import loops

G = torch.Generator().manual_seed(0)
W, V, B = (torch.randn(*s, generator=G) / 3 for s in ((16, 5), (16, 16), (16,)))
XS, START = torch.randn(7, 2, 5, generator=G), torch.randn(2, 16, generator=G)


def recurrent(product):
    def f(loop, xs, w, v, b):
        return loop(lambda h, x: (torch.tanh(product(x, w, b) + h @ v), h.sum()), START, xs)

    return f


def transposed(xs):
    return xs.transpose(0, 1).clone().transpose(0, 1)


def nested(loop, xs, w, v, b):
    return loop(lambda h, x: (recurrent(F.linear)(loop, xs + x, w, v, b)[0] + h, x), START, xs[:3])


STEPS = {  # of each the number of products that are left in the step
    "linear": (recurrent(F.linear), 1),
    "mm": (recurrent(lambda x, w, b: x @ w.t()), 1),
    "flattened": (recurrent(lambda x, w, b: F.linear(x.view(1, 2, 5), w, b)[0]), 1),
    "two": (recurrent(lambda x, w, b: F.linear(x, w, b) * F.linear(x, w * 1, b)), 2),
    "of the carry": (recurrent(lambda x, w, b: F.linear(x * 2, w, b)), 2),
    "put out": (lambda loop, xs, w, v, b: loop(lambda h, x: (h @ v, F.linear(x, w, b)), START, xs), 1),
    "carried": (lambda loop, xs, w, v, b: loop(lambda h, x: (F.linear(x, w, b), h @ v), START, xs), 1),
    "rows transposed": (lambda loop, xs, *rest: recurrent(F.linear)(loop, transposed(xs), *rest), 1),
    "a loop inside": (lambda *args: nested(*args), None),
}


def products(f):
    gm = functionalize(ft.jit(lambda *args: f(ft.scan, *args)).lower(XS, W, V, B).graph)
    hoist(gm)
    (loop,) = loops(gm)
    return sum(
        n.target in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default) for n in loop.target.body.graph.nodes
    )


@pytest.mark.parametrize("name", STEPS)
def test_they_are_the_numbers_of_the_fold(name):
    f, left = STEPS[name]
    assert left is None or products(f) == left

    def loss(loop):
        def one(xs, w, v, b):
            h, ys = f(loop, xs, w, v, b)
            return (h**2).sum() + (ys**2).sum()

        return one

    args = XS, W, V, B
    assert not tree.differences(ft.jit(lambda *a: f(ft.scan, *a))(*args), f(ft.fold, *args), rtol=1e-5, atol=1e-5)
    for k in range(3):
        got, expected = ft.jit(ft.grad(loss(ft.scan), k))(*args), ft.grad(loss(ft.fold), k)(*args)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_a_loop_that_may_stop_keeps_its_products():
    def f(xs, w):
        return ft.scan(lambda h, x: ft.Stop(h + F.linear(x, w), None, when=h.sum() > 9), START, xs)[0]

    gm = functionalize(ft.jit(f).lower(XS, W).graph)
    hoist(gm)
    (loop,) = loops(gm)
    assert any(n.target is torch.ops.aten.mm.default for n in loop.target.body.graph.nodes)


def test_compiled_by_inductor_it_is_the_same():
    f, _ = STEPS["linear"]
    got = ft.jit(lambda *a: f(ft.scan, *a), backend="inductor")(XS, W, V, B)
    assert not tree.differences(got, f(ft.fold, XS, W, V, B), rtol=1e-5, atol=1e-5)
