"""What tracing, planning and compiling cost grows as the graph, not as its square: counted in calls of functions."""

import pytest
import torch
from nesting import calls

import functrain as ft
from functrain import losses, nn, optim

OPTIMIZERS = {
    "sgd, plain": lambda: optim.sgd(lr=0.1),
    "adamw, by a kernel for all leaves": lambda: optim.adamw(lr=0.1),
    "lion, by formulas": lambda: optim.lion(lr=0.1),
    "sgd after a norm of all gradients": lambda: optim.chain(optim.clip_by_global_norm(1.0), optim.sgd(0.1, 0.9)),
}


def first_call(layers, optimizer):
    learner = ft.Learner(nn.serial(*[nn.dense(4) for _ in range(layers)]), losses.cross_entropy, optimizer())
    batch = torch.ones(2, 4), torch.zeros(2, dtype=torch.int64)
    state = ft.init(learner, ft.random.key(0), batch)
    step = ft.jit(ft.train_step(learner), donate=0)
    return lambda: step(state, batch)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_twice_the_layers_cost_twice(name):
    first_call(2, OPTIMIZERS[name])()  # what is set up once
    counts = [calls(first_call(layers, OPTIMIZERS[name])) for layers in (40, 80)]
    assert counts[1] < 2.1 * counts[0], counts
