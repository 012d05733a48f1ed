"""What the tests of transforms within transforms share: transforms by name, an oracle for each, and counts of nodes.

Each transform here takes a function from a vector to a scalar and returns another one, so that any number of them nest
in any order. The oracle of each is written with `torch.autograd` and Python loops alone.
"""

import gc
import sys
from itertools import product

import torch

import functrain as ft
from functrain.engine.tracing.recording import Recording

ROWS = torch.tensor([[1.0], [0.5], [-0.7]])


def squared(gradient):
    return lambda f: lambda x: (gradient(f)(x) ** 2).sum()


def by_autograd(f):
    def gradient(x):
        x = x if x.requires_grad else x.detach().requires_grad_()
        value = f(x)
        if not value.requires_grad:
            return torch.zeros_like(x)
        (found,) = torch.autograd.grad(value, x, create_graph=True, allow_unused=True)
        return torch.zeros_like(x) if found is None else found

    return gradient


def mapped(vmap):
    return lambda f: lambda x: vmap(f)(ROWS * x).sum()


def by_loop(f):
    return lambda batch: torch.stack([f(x) for x in batch])


TRANSFORMS = {
    "jit": ft.jit,
    "grad": squared(ft.grad),
    "torch.func.grad": squared(torch.func.grad),
    "vmap": mapped(ft.vmap),
    "remat": ft.remat,
}

ORACLES = {
    "jit": lambda f: f,
    "grad": squared(by_autograd),
    "torch.func.grad": squared(by_autograd),
    "vmap": mapped(by_loop),
    "remat": lambda f: f,
}


def orders(count, names=tuple(TRANSFORMS)):
    """All orders of so many transforms, the outermost first."""
    return ["(".join(names) for names in product(names, repeat=count)]


def nested(order, f, table=TRANSFORMS):
    for name in reversed(order.split("(")):
        f = table[name](f)
    return f


def oracle(order, f, x):
    """The value that a nest of transforms has, by autograd through the plain function."""
    return nested(order, f, ORACLES)(x).detach()


def nodes(gm):
    """The number of nodes of a graph and of the graphs inside it."""
    inside = (g for node in gm.graph.nodes if hasattr(node.target, "graphs") for g in node.target.graphs())
    return len(gm.graph.nodes) + sum(map(nodes, inside))


def size_and_cost(f, x):
    """The size of a function's graph, and what it costs to trace it: operations recorded, traces within the trace."""
    recorded, call, finish = [0, 0], Recording.call, Recording.finish

    def counting(self, *args):
        recorded[0] += 1
        return call(self, *args)

    def finishing(self, *args):
        recorded[1] += 1
        return finish(self, *args)

    Recording.call, Recording.finish = counting, finishing
    try:
        return nodes(ft.jit(f).lower(x).graph), *recorded
    finally:
        Recording.call, Recording.finish = call, finish


def calls(f, *args):
    """The number of functions, of Python and of C, that a call makes: how long it takes, without a clock."""
    count = 0

    def counting(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    gc.collect()
    gc.disable()
    sys.setprofile(counting)
    try:
        f(*args)
    finally:
        sys.setprofile(None)
        gc.enable()
    return count
