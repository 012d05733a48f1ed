"""A small run with everything that must be gone on with exactly; as a script, the rest of one: FOLDER JIT CHUNK."""

import sys
from functools import partial

import attrs
import torch

import functrain as ft
from functrain import callbacks, checkpoint, data, losses, metrics, nn, optim, schedule, tree

EPOCHS = 3


def noisy(key, batch):
    """Return the batch with noise drawn from its key."""
    return attrs.evolve(batch, input=batch.input + 0.1 * ft.random.normal(key, tuple(batch.input.shape)))


def averaging(params, rate=0.9):
    """Return a callback whose memory is the exponential moving average of the parameters."""

    def after_step(step):
        mean = tree.map(lambda m, p: rate * m + (1 - rate) * p, step.memory["ema"], step.state.params)
        return ft.train.remember(ft.log(step, "drift", tree.global_norm(mean)), "ema", mean)

    return ft.Callback("ema", {"after_step": after_step}, memory=tree.clone(params))


def fitting(jit=False, chunk=3):
    """Return the fit but for its state and callbacks, the first state, and the callbacks."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(36, 4, generator=generator)
    rows = data.ArrayDataset((inputs, (inputs.sum(1) > 0).long()))
    model = nn.serial(nn.dense(5), nn.batch_norm(), nn.relu, nn.dropout(schedule.linear(0.1, 0.4)), nn.dense(2))
    optimizer = optim.accumulate(2, optim.sgd(lr=schedule.one_cycle(0.05, 0.2, 0.01), momentum=0.9))
    learner = ft.Learner(model, losses.cross_entropy, optimizer, {"accuracy": metrics.accuracy})
    state = ft.init(learner, ft.random.key(0), rows[:1])
    train = data.loader(rows, data.shuffled(8), transform=noisy if not jit else None)
    valid = data.loader(rows, data.sequential(16))
    taking_part = [
        averaging(state.params),
        callbacks.early_stopping("valid/loss", patience=1, mode="max", restore_best=True),
        callbacks.record(),
    ]
    fit = partial(ft.fit, learner, train=train, valid=valid, epochs=EPOCHS, jit=jit, chunk=chunk)
    return fit, state, taking_part


def main():
    """Go on with the newest of a folder, and save how it ended."""
    folder, jit, chunk = sys.argv[1], sys.argv[2] != "False" and sys.argv[2], int(sys.argv[3])
    fit, _, taking_part = fitting(jit, chunk)
    guest = ft.Callback("a guest", {})
    for entry in checkpoint.entries(folder):
        run = fit(checkpoint.restore(entry.path), callbacks=[*taking_part, guest])
        checkpoint.add(f"{folder}/ended", run)


if __name__ == "__main__":
    main()
