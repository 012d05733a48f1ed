"""A second fit of the same learner: what was traced for the first is found again.

The model is an MLP of 13 layers, and a fit two epochs of 8 batches. What is measured is the time of the second `fit`
and that of the first one, in a fresh process. The check is the loss after the fit.
"""

import subprocess
import sys
import time
from functools import partial

import torch

from benchmarks.entrant import Entrant, Target
from benchmarks.workloads._device import DEVICE, synchronise, tolerance

UNIT = (1.0, "s")
TOLERANCE = tolerance(1e-4)


def _fits(jit: str) -> tuple[float, float, float]:
    """Return the seconds of the first and the second fit, and the loss after them."""
    import functrain as ft
    from functrain import data, losses, nn, optim

    generator = torch.Generator().manual_seed(0)
    rows = data.ArrayDataset(
        (
            torch.randn(512, 32, generator=generator).to(DEVICE),
            torch.randint(10, (512,), generator=generator).to(DEVICE),
        )
    )
    hidden = [layer for _ in range(12) for layer in (nn.dense(64), nn.relu)]
    learner = ft.Learner(nn.serial(*hidden, nn.dense(10)), losses.cross_entropy, optim.adam(1e-3))
    state = ft.init(learner, ft.random.key(0), rows[:1])
    train, valid = data.loader(rows, data.shuffled(64)), data.loader(rows, data.sequential(128))
    seconds, loss = [], 0.0
    for _ in range(2):
        begun = time.perf_counter()
        loss = ft.fit(learner, state, train=train, valid=valid, epochs=2, jit=jit).history[-1]["valid/loss"]
        synchronise()
        seconds.append(time.perf_counter() - begun)
    return seconds[0], seconds[1], loss


def _entrant(jit: str, which: int) -> Entrant:
    def run() -> float:
        command = [sys.executable, "-m", "benchmarks.workloads.second_fit", jit]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        return float(out.split()[which])

    return Entrant(run, lambda: _fits(jit)[2])


ENTRANTS = {
    "functrain, first fit": partial(_entrant, "aten", 0),
    "functrain, second fit": partial(_entrant, "aten", 1),
}
TARGETS = [Target("functrain, second fit", "functrain, first fit", 0.3)]

if __name__ == "__main__":
    print(*_fits(sys.argv[1]))
