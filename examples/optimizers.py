"""Race ten optimizers on one problem, from eight seeds each, in one compiled call.

    python examples/optimizers.py [--out DIR] [--seeds N]

The problem is an MLP on real handwritten digits; each optimizer has a rate that suits it, and a cosine. A run is a
`scan` over updates, the seeds are mapped over by `vmap`, and all ten are one function, traced once. It prints the
losses of the validation set, the best first, with their range over the seeds, and draws the curves of the training.

Over 24 seeds the validation losses lay between 0.024 and 0.174, the medians of eight seeds between 0.029 and 0.032
(adafactor), 0.041 and 0.043 (muon), 0.076 and 0.096 (lion), 0.074 and 0.076 (adagrad), 0.058 and 0.066 (the others).
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import functrain as ft
from functrain import data, losses, nn, optim, random, schedule

STEPS, BATCH = 300, 64

RACERS = {
    "sgd": lambda lr: optim.sgd(1.0 * lr),
    "momentum": lambda lr: optim.sgd(0.1 * lr, momentum=0.9),
    "nesterov": lambda lr: optim.sgd(0.1 * lr, momentum=0.9, nesterov=True),
    "adagrad": lambda lr: optim.adagrad(0.1 * lr),
    "rmsprop": lambda lr: optim.rmsprop(0.01 * lr),
    "adam": lambda lr: optim.adam(0.01 * lr),
    "nadam": lambda lr: optim.nadam(0.01 * lr),
    "lion": lambda lr: optim.lion(0.01 * lr),
    "adafactor": lambda lr: optim.adafactor(0.1 * lr),
    "muon": lambda lr: optim.muon(0.03 * lr, others=optim.adamw(0.003 * lr)),
}

train, valid = data.digits()
model = nn.serial(nn.dense(64), nn.relu, nn.dense(10))


def loss_of(params: Any, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return the mean loss of some rows."""
    return losses.cross_entropy(model.apply(params, {}, inputs)[0], labels).mean()


def run(optimizer: optim.Transform, key: Tensor) -> tuple[Tensor, Tensor]:
    """Return the training losses of one run, and the validation loss after it."""
    inputs, labels = train.arrays
    params, _ = model.init(key, inputs[:1])

    def step(carry: Any, t: Tensor) -> Any:
        params, opt_state = carry
        rows = random.randint(random.fold_in(key, t), (BATCH,), 0, len(labels))
        loss, grads = ft.value_and_grad(loss_of)(params, inputs[rows], labels[rows])
        context = optim.Context(position=t.double() / STEPS, updates=t, step=t)
        return optim.step(optimizer, grads, opt_state, params, context), loss

    (params, _), curve = ft.scan(step, (params, optimizer.init(params)), torch.arange(STEPS))
    return curve, loss_of(params, *valid.arrays)


@ft.jit
def race(keys: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Return what each optimizer did from each key: curves (seeds, steps) and last losses (seeds,)."""
    fall = schedule.cosine(1.0, 0.0)
    return {name: ft.vmap(lambda key, make=make: run(make(fall), key))(keys) for name, make in RACERS.items()}


def draw(results: dict[str, tuple[Tensor, Tensor]], to: Path) -> None:
    """Draw the median of the training losses over the seeds, each a mean over ten updates."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axis = figure.subplots()
    for name, (curves, _) in results.items():
        median = curves.unflatten(1, (-1, 10)).mean(2).median(0).values
        axis.plot(torch.arange(10, STEPS + 1, 10), median, label=name)
    axis.set(xlabel="updates", ylabel="training loss", yscale="log")
    axis.legend()
    figure.savefig(to)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("."), help="the folder for the picture")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    args = parser.parse_args()

    begun = time.perf_counter()
    results = race(torch.stack([random.key(args.first + seed) for seed in range(args.seeds)]))
    print(f"{len(RACERS)} optimizers, {args.seeds} seeds, {STEPS} updates: {time.perf_counter() - begun:.1f} s")
    for name, (_, last) in sorted(results.items(), key=lambda item: float(item[1][1].median())):
        print(f"{name:>10}: validation loss {last.median():.4f}, from {last.min():.4f} to {last.max():.4f}")
    draw(results, args.out / "optimizers.png")
    print(f"wrote {args.out / 'optimizers.png'}")


if __name__ == "__main__":
    main()
