"""Fits in which the step itself fails at one batch, in every kind of way, for the law that nothing is lost by it."""

import attrs
import torch
from torch.library import custom_op

import functrain as ft
from functrain import data, losses, nn, optim, schedule

SIZE, BATCHES = 4, 11
"""Rows of a batch, and batches of an epoch."""


@custom_op("functrain_tests::fragile", mutates_args=())
def fragile(x: torch.Tensor) -> torch.Tensor:
    """An operator of a user's own: it has not the memory for what is as large as 99."""
    if bool((x.abs() >= 99).any()):
        raise MemoryError("no memory for as much")
    return x.clone()


@fragile.register_fake
def _(x):
    return torch.empty_like(x)


fragile.register_autograd(lambda ctx, grad: grad)


@attrs.frozen
class Failing:
    """A fit that fails at one batch, and what it is without that.

    Attributes:
        learner: what is trained.
        whole: the arrays that everything goes well with.
        spoil: (arrays, row) -> the arrays with one row that fails.
        error: what is raised.
    """

    learner: ft.Learner
    whole: tuple
    spoil: object
    error: type


def _numbers():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(SIZE * BATCHES, 3, generator=generator)
    return inputs, (inputs.sum(1) > 0).long()


def _tokens():
    generator = torch.Generator().manual_seed(2)
    return torch.randint(7, (SIZE * BATCHES, 2), generator=generator), _numbers()[1]


def _with(part, value):
    def spoil(arrays, row):
        spoiled = [leaf.clone() for leaf in arrays]
        spoiled[part][row] = value
        return tuple(spoiled)

    return spoil


def _learner(*layers, optimizer=None, loss=losses.cross_entropy):
    sgd = optim.sgd(schedule.linear(0.1, 0.01), momentum=0.9)
    return ft.Learner(nn.serial(*layers), loss, sgd if optimizer is None else optimizer)


def _by_fragile(updates, state, params, context=None):
    return ft.tree.map(lambda g: fragile(g * 1e3) / 1e3, updates), state


LAST = optim.Transform(init=lambda params: {}, update=_by_fragile)
"""An optimizer's last piece, which fails after the states of those before it have been written."""
EXPLODING = optim.chain(optim.sgd(1e-3, momentum=0.9), LAST)

KINDS = {
    "label": lambda: Failing(
        _learner(nn.dense(4), nn.dropout(0.2), nn.dense(2)), _numbers(), _with(1, 9), ft.errors.LabelOutOfRange
    ),
    "index": lambda: Failing(
        _learner(nn.embedding(7, 4), nn.flatten, nn.batch_norm(), nn.dense(2)),
        _tokens(),
        _with(0, 7),
        ft.errors.FunctrainError,
    ),
    "kernel": lambda: Failing(
        _learner(nn.dense(4), lambda x: torch.linalg.cholesky(x[:, None, :] * x[:, :, None] + 50 * torch.eye(4))[:, 0]),
        _numbers(),
        _with(0, float("nan")),
        RuntimeError,
    ),
    "memory": lambda: Failing(_learner(fragile, nn.dense(4), nn.dense(2)), _numbers(), _with(0, 99.0), MemoryError),
    "memory in the update": lambda: Failing(
        _learner(nn.dense(1), optimizer=EXPLODING, loss=lambda p, t: (p[:, 0] - t).square()),
        _numbers(),
        _with(0, 1e3),
        MemoryError,
    ),
}


def loader(arrays, way):
    """Return the arrays as batches: gathered inside the call, in a list, or in tensors that are filled again."""
    rows = data.ArrayDataset(arrays)
    if way == "arrays":
        return data.loader(rows, data.sequential(SIZE))
    batches = [rows[k : k + SIZE] for k in range(0, SIZE * BATCHES, SIZE)]
    if way == "collated":
        return data.loader(batches, data.sequential(1), collate=_refilling(batches[0]))
    return batches if way == "list" else Anew(batches)


def _refilling(batch):
    """Return a collate function that puts one batch after the other into the same tensors."""
    buffers = tuple(leaf.clone() for leaf in batch)

    def collate(examples):
        for buffer, leaf in zip(buffers, examples[0], strict=True):
            buffer.copy_(leaf)
        return buffers

    return collate


class Anew:
    """A source that is no list, and fills the same tensors with each batch."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        buffers = [leaf.clone() for leaf in self.batches[0]]
        for batch in self.batches:
            for buffer, leaf in zip(buffers, batch, strict=True):
                buffer.copy_(leaf)
            yield tuple(buffers)
