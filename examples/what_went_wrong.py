"""Finds the batch that made a run blow up, and goes on without it.

The digits of one scanner are stored in other units, a million times too large. The run saves itself every few batches,
goes wrong without a word, and is looked at afterwards: the record says at which step, `replay` brings back that very
batch, `debug` shows what the step made of each row, and a fork of the run goes on with such rows left out.

Prints, in ten seconds on two cores:

    the loss left its band at step N
    row R of that batch, example E, has the loss L
    accuracy as it was A, with such rows left out B

with N from 0 to 23, E from 700 to 703, L above 10,000, A below 0.6 and B above 0.93 (bands over eight seeds).
"""

import argparse
import tempfile

import attrs
import torch

import functrain as ft
from functrain import callbacks, data, losses, metrics, nn, optim, time_travel

WRONG = slice(700, 704)
"""The examples of one scanner."""


def rows_with_a_fault():
    """Return the digits, some of them stored in other units."""
    train, valid = data.digits()
    inputs, labels = train.arrays
    factor = torch.ones(len(inputs), 1)
    factor[WRONG] = 1e6
    return data.ArrayDataset((inputs * factor, labels)), valid


def leave_out(step):
    """Give no weight to the rows of a batch that are far out of their range."""
    batch = step.batch
    return attrs.evolve(step, batch=attrs.evolve(batch, weight=(batch.input.abs().amax(1) < 1e3).float()))


def main():
    """Train, look back, and go on from before."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    rows, valid = rows_with_a_fault()
    model = nn.serial(nn.dense(50), nn.relu, nn.dense(10))
    learner = ft.Learner(model, losses.cross_entropy, optim.sgd(0.1, momentum=0.9), {"accuracy": metrics.accuracy})
    state = ft.init(learner, ft.random.key(seed), rows[:1])
    train = data.loader(rows, data.shuffled(64))
    guard, silent = ft.Callback("guard", {}), ft.Callback("save_checkpoints", {})  # which do nothing

    with tempfile.TemporaryDirectory() as folder:
        saving = callbacks.save_checkpoints(folder, every=5, keep_last=None)
        validation = data.loader(valid, data.sequential(128))
        options = dict(train=train, valid=validation, callbacks=[guard, callbacks.record(), saving])
        run = ft.fit(learner, state, epochs=5, **options)

        loss = run.memory["record"]["loss"]
        step = int((~(loss < 20)).nonzero()[0])
        print(f"the loss left its band at step {step}")

        past = time_travel.past(learner, folder, state=state, epochs=5, **options)
        moment = time_travel.replay(past, step)
        seen = {}
        time_travel.debug(past, step, {"after_loss": lambda step: seen.update(losses=step.losses.detach())})
        worst = int(seen["losses"].argmax())
        example = int((rows.arrays[0] == moment.batch.input[worst]).all(1).nonzero()[0])
        print(f"row {worst} of that batch, example {example}, has the loss {seen['losses'][worst]:.3g}")

        guarded = [attrs.evolve(guard, handlers={"begin_step": leave_out}), callbacks.record(), silent]
        forked = ft.fit(learner, time_travel.fork(past, step, lambda run: run), **{**options, "callbacks": guarded})
        was, now = (one.history[-1]["valid/accuracy"] for one in (run, forked))
        print(f"accuracy as it was {was:.3f}, with such rows left out {now:.3f}")


if __name__ == "__main__":
    main()
