"""What the loop adds: an epoch of the lesson's MLP by `fit` with callbacks, against a fold of the same step by hand.

By hand a chunk of eight steps is one compiled call, as in `fit`; the losses and accuracies of the batches are summed,
and that is all. `fit` has progress, history, early stopping, and metrics; or saves itself every 100 steps as well.
"""

import io
import tempfile
import time
from functools import partial
from typing import Any

import torch

from benchmarks.entrant import Entrant, Target
from benchmarks.workloads._device import tolerance
from benchmarks.workloads._lesson import BATCH, LR, ROWS, arrays, first_params

UNIT = (1.0, "s")
TOLERANCE = tolerance(2e-3)
CHUNK = 8
EPOCHS = 3


def _parts() -> tuple[Any, Any, Any]:
    import attrs

    import functrain as ft
    from functrain import data, losses, metrics, nn, optim

    rows = data.ArrayDataset(arrays())
    model = nn.serial(nn.dense(50), nn.relu, nn.dense(10))
    learner = ft.Learner(model, losses.cross_entropy, optim.sgd(lr=LR), {"accuracy": metrics.accuracy})
    return rows, learner, attrs.evolve(ft.init(learner, ft.random.key(0), rows[:1]), params=first_params())


def _by_hand() -> Entrant:
    import functrain as ft
    from functrain import data, random, tree

    rows, learner, first = _parts()
    step, (inputs, labels) = ft.train_step(learner), rows.arrays

    def one(state: Any, index: torch.Tensor) -> Any:
        return step(state, data.Batch(inputs[index], labels[index]))

    several = ft.jit(lambda state, indices: ft.scan(one, state, indices), donate=0)
    single = ft.jit(one, donate=0)

    def epoch(state: Any, order: torch.Tensor) -> tuple[Any, float]:
        total = torch.zeros(2, dtype=torch.float64)
        whole = ROWS // BATCH
        for at in range(0, whole - whole % CHUNK, CHUNK):
            state, logs = several(state, order[at * BATCH : (at + CHUNK) * BATCH].view(CHUNK, BATCH))
            total += BATCH * torch.stack([logs["loss"].sum(), logs["accuracy"].sum()])
        for at in range((whole - whole % CHUNK) * BATCH, ROWS, BATCH):
            index = order[at : at + BATCH]
            state, logs = single(state, index)
            total += len(index) * torch.stack([logs["loss"], logs["accuracy"]])
        return state, float(total[0]) / ROWS

    def begin() -> Any:
        return ft.plan(tree.clone(first), -(-ROWS // BATCH), EPOCHS)

    def timed() -> float:
        state, _ = epoch(begin(), random.permutation(random.key(0), ROWS))
        began = time.perf_counter()
        for number in range(1, EPOCHS):
            state, _ = epoch(state, random.permutation(random.key(number), ROWS))
        return (time.perf_counter() - began) / (EPOCHS - 1)

    return Entrant(timed, lambda: epoch(begin(), torch.arange(ROWS))[1])


def _by_fit(callbacks: Any, saving: bool = False) -> Entrant:
    import functrain as ft
    from functrain import data

    rows, learner, first = _parts()

    def fit(sampler: Any, epochs: int, *more: Any) -> Any:
        taking_part = [*callbacks(), *more]
        with tempfile.TemporaryDirectory() as folder:
            if saving:
                taking_part.append(ft.callbacks.save_checkpoints(f"{folder}/run", every=100))
            return ft.fit(learner, first, train=data.loader(rows, sampler), epochs=epochs, callbacks=taking_part)

    def timed() -> float:
        marks: list[float] = []
        clock = ft.Callback("clock", {"after_epoch": lambda run: marks.append(time.perf_counter())}, keeps_state=False)
        fit(data.shuffled(BATCH), EPOCHS, clock)
        return (marks[-1] - marks[0]) / (EPOCHS - 1)

    return Entrant(timed, lambda: fit(data.sequential(BATCH), 1).history[0]["train/loss"])


def _none() -> list[Any]:
    return []


def _usual() -> list[Any]:
    from rich.console import Console

    from functrain import callbacks

    return [callbacks.progress(Console(file=io.StringIO())), callbacks.early_stopping("train/loss", patience=100)]


ENTRANTS = {
    "by hand": _by_hand,
    "fit, no callbacks": partial(_by_fit, _none),
    "fit, usual callbacks": partial(_by_fit, _usual),
    "fit, usual callbacks, saving": partial(_by_fit, _usual, saving=True),
}

TARGETS = [
    Target("fit, usual callbacks", "by hand", 1.05),
    Target("fit, usual callbacks, saving", "fit, usual callbacks", 1.03),
]
