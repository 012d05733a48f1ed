"""Rematerialisation: the same gradients, in less memory, wherever gradients are taken."""

from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from functrain import engine, tree
from functrain.engine import value_and_grad
from functrain.engine.tracing.to_graph import trace
from functrain.engine.transforms.gradients import by_autograd
from functrain.engine.transforms.rematerializing import remat

DEPTH, WIDTH, ROWS = 8, 16, 512


def block(params, x, shift):
    """Several intermediate values, an integer argument, and a tree as a result."""
    h = torch.tanh(x @ params["w"] + params["b"])
    h = torch.nn.functional.gelu(h).sin().exp() * 0.5
    return {"y": h + x + shift, "count": shift + 1}


def network(wrap):
    wrapped = wrap(block)

    def loss(params, x):
        shift = torch.tensor(0)
        for layer in params:
            out = wrapped(layer, x, shift)
            x, shift = out["y"], out["count"]
        return (x**2).mean()

    return loss


PLAIN, REMAT = network(lambda f: f), network(remat)


@pytest.fixture(scope="module")
def problem():
    gen = torch.Generator().manual_seed(0)
    params = [{"w": torch.randn(WIDTH, WIDTH, generator=gen) * 0.1, "b": torch.zeros(WIDTH)} for _ in range(DEPTH)]
    return params, torch.randn(ROWS, WIDTH, generator=gen)


def close(a, b):
    assert not tree.differences(a, b, rtol=1e-4, atol=1e-5), tree.differences(a, b, rtol=1e-4, atol=1e-5)


def test_same_value_without_differentiation(problem):
    assert torch.equal(REMAT(*problem), PLAIN(*problem))


def test_same_gradients_eager(problem):
    assert tree.equal(value_and_grad(REMAT)(*problem), value_and_grad(PLAIN)(*problem))


def test_same_gradients_under_torch_func(problem):
    expected = torch.func.grad_and_value(PLAIN)(*problem)
    close(torch.func.grad_and_value(REMAT)(*problem), expected)


def test_same_gradients_in_jit(problem):
    close(engine.jit(value_and_grad(REMAT))(*problem), value_and_grad(PLAIN)(*problem))


def test_same_gradients_with_vmap_outside_and_inside(problem):
    params, x = problem
    xs = x[:12].reshape(3, 4, WIDTH)
    both = [torch.func.vmap(torch.func.grad(f), (None, 0))(params, xs) for f in (REMAT, PLAIN)]
    close(*both)
    both = [torch.func.grad(lambda p, f=f: torch.func.vmap(f, (None, 0))(p, xs).sum())(params) for f in (REMAT, PLAIN)]
    close(*both)


@pytest.mark.filterwarnings("ignore:`torch.jit")  # PyTorch's forward mode scripts its own decompositions
def test_same_second_derivatives_and_forward_derivatives():
    def f(wrap):
        return lambda w: wrap(lambda w, x: (torch.tanh(x * w) ** 2).sum())(w, torch.arange(3.0))

    w = torch.tensor([0.3, -0.2, 0.5])

    def twice(g):
        return torch.func.jacrev(torch.func.jacrev(g))

    for derivative in (torch.func.hessian, twice, torch.func.jacrev, torch.func.jacfwd):
        close(derivative(f(remat))(w), derivative(f(lambda g: g))(w))


def test_same_second_derivatives_with_autograd_outside():
    def curvature(wrap):
        w = torch.tensor([0.3, -0.2, 0.5], requires_grad=True)
        part = wrap(lambda w, x: (torch.tanh(x * w) ** 2).sum())
        return torch.autograd.grad(torch.func.grad(part)(w, torch.arange(3.0)).sum(), w)[0]

    close(curvature(remat), curvature(lambda f: f))


def test_gradient_by_the_input_alone_and_by_all(problem):
    params, x = problem
    close(torch.func.grad(REMAT, 1)(params, x), torch.func.grad(PLAIN, 1)(params, x))
    close(torch.func.grad(REMAT, (0, 1))(params, x), torch.func.grad(PLAIN, (0, 1))(params, x))


def test_none_and_numbers_pass_through():
    f = remat(lambda x, scale, nothing: (x * scale, nothing, "text"))
    result = torch.func.grad(lambda x: f(x, 3.0, None)[0])(torch.tensor(2.0))
    assert result == 3
    seen = []
    torch.func.grad(lambda x: (seen.append(f(x, 3.0, None)[1:]), f(x, 3.0, None)[0])[1])(torch.tensor(2.0))
    assert seen == [(None, "text")]


def test_closing_over_what_is_differentiated():
    def loss(w):
        return remat(lambda x: (x * w).sum())(torch.ones(2))

    assert torch.equal(torch.func.grad(loss)(torch.ones(2)), torch.ones(2))
    assert torch.equal(value_and_grad(loss)(torch.ones(2))[1], torch.ones(2))


class Peak(TorchDispatchMode):
    """Counts the bytes of tensors that operations made and that are still alive."""

    def __init__(self):
        super().__init__()
        self.alive, self.now, self.peak = WeakIdKeyDictionary(), 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.alive[leaf.untyped_storage()] = leaf.untyped_storage().nbytes()
        self.peak = max(self.peak, sum(self.alive.values()))
        return out


def peak(f, *args):
    f(*args)
    with Peak() as counter:
        f(*args)
    return counter.peak


def peak_of_graph(gm, inputs):
    """The bytes alive at most while the operations of a graph run in their order, each freed after its last use."""
    last = {n: node for node in gm.graph.nodes for n in node.all_input_nodes}
    alive, most = {}, 0
    for node in gm.graph.nodes:
        value = node.meta.get("val")
        if node.op == "call_function" and isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            alive.setdefault(storage._cdata, [0, set()])[0] = storage.nbytes()
            alive[storage._cdata][1].add(node)
        most = max(most, sum(size for size, _ in alive.values()))
        for n in [n for n, end in last.items() if end is node]:
            for key in [k for k, (_, users) in alive.items() if n in users]:
                alive[key][1].discard(n)
                if not alive[key][1]:
                    del alive[key]
    return most


@pytest.mark.parametrize("way", [lambda f: partial(by_autograd, f, 0, False), torch.func.grad_and_value])
def test_less_memory_eager(problem, way):
    args = (problem,) if way is not torch.func.grad_and_value else problem
    assert peak(way(REMAT), *args) < 0.5 * peak(way(PLAIN), *args)


def test_less_memory_in_jit_after_its_passes(problem):
    from functrain.engine.graph.passes.simplifying import simplify

    leaves, spec = tree.flatten(problem)

    def graph(loss):
        flat = lambda *leaves: tree.leaves(value_and_grad(loss)(*tree.unflatten(spec, leaves)))  # noqa: E731
        traced = trace(flat, leaves, tree.paths(problem))
        return peak_of_graph(simplify(traced.gm), leaves)

    assert graph(REMAT) < 0.5 * graph(PLAIN)
