"""A small fit that the tests of saving share."""

from functools import partial

import torch

import functrain as ft
from functrain import data, losses, metrics, nn, optim


def problem(jit="aten", epochs=4, **options):
    """Return the fit but for state and callbacks, of 7 batches an epoch, and the state."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(50, 4, generator=generator)
    rows = data.ArrayDataset((inputs, (inputs.sum(1) > 0).long()))
    model = nn.serial(nn.dense(5), nn.batch_norm(), nn.relu, nn.dropout(0.2), nn.dense(2))
    learner = ft.Learner(model, losses.cross_entropy, optim.adam(0.01), {"accuracy": metrics.accuracy})
    train, valid = data.loader(rows, data.shuffled(8)), data.loader(rows, data.sequential(16))
    fit = partial(ft.fit, learner, train=train, valid=valid, epochs=epochs, jit=jit, **options)
    return fit, ft.init(learner, ft.random.key(0), rows[:1])


def numbers(run, *but):
    """Return what two runs are compared by: the state, the history, the memories but some."""
    memory = {name: value for name, value in run.memory.items() if name not in ("save_checkpoints", *but)}
    return [run.state, list(run.history), memory]
