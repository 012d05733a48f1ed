"""Small training problems that the tests of the loop share."""

import torch

import functrain as ft
from functrain import data, losses, metrics, nn, optim, schedule


def problem(n=50, remainder="keep", batch_size=8, model=None, optimizer=None, **options):
    """Return a learner, its first state, and loaders to train and to validate with."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(n, 4, generator=generator)
    rows = data.ArrayDataset((inputs, (inputs.sum(1) > 0).long() + (inputs[:, 0] > 1).long()))
    model = nn.serial(nn.dense(6), nn.batch_norm(), nn.relu, nn.dropout(0.2), nn.dense(3)) if model is None else model
    optimizer = optim.sgd(lr=schedule.one_cycle(0.05, 0.2, 0.01), momentum=0.9) if optimizer is None else optimizer
    learner = ft.Learner(model, losses.cross_entropy, optimizer, {"accuracy": metrics.accuracy}, **options)
    state = ft.init(learner, ft.random.key(0), rows[:1])
    train = data.loader(rows, data.shuffled(batch_size, remainder=remainder))
    valid = data.loader(rows, data.sequential(2 * batch_size))
    return learner, state, train, valid


def eager(learner, state, train, valid=None, **options):
    """Return the run of two epochs in plain Python."""
    if not {"epochs", "steps"} & options.keys():
        options["epochs"] = 2
    return ft.fit(learner, state, train=train, valid=valid, jit=False, **options)


def stopping_at(step, name="at"):
    """Return a callback that ends the fit before the batch `step` of the run, once."""

    def stop(s):
        fired = s.memory[name]
        now = (s.state.step == step) & (fired == 0)
        return ft.Stop(ft.train.remember(s, name, fired + now), scope="fit", when=now)

    return ft.Callback(name, {"begin_step": stop}, memory=torch.tensor(0))


def noting(events, notes, name="note"):
    """Return a callback that notes event, phase and batch."""
    return ft.Callback(
        name, {e: lambda run, e=e: notes.append((e, run.phase, run.step)) for e in events}, phases=("train", "valid")
    )


def raiser(kind, message):
    """Return a handler that raises."""

    def handler(run):
        raise kind(message)

    return handler


class Rows:
    """A dataset that is not of arrays, so that nobody sees its rows before they are asked for."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]
