"""Reproduce the numbers that fastai's lesson 9 printed (notebooks 03 to 05), on MNIST.

    python examples/lesson.py --data DIR [--download] [--jit BACKEND]

Each row shows what the notebook printed, a band, and what functrain gets. The bands are a little wider than the range
over 50 seeds (300 for notebook 03) of the same program in plain PyTorch and of this one, whose means agree. DIR holds
the four IDX files of MNIST, gzipped or not; --download fetches them there.

Notebooks 03 to 05 train on the pixels as they are, divided by 256; only notebook 02 normalises them. With normalised
inputs the losses are another matter: 2.39 before training and 0.16 where notebook 05 has 0.30.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import attrs
from rich.console import Console
from rich.table import Table

import functrain as ft
from functrain import data, initializers, losses, metrics, nn, optim, schedule


@attrs.frozen
class Row:
    """A number of the lesson: where it was printed, its value there, the band of plain PyTorch, and ours."""

    notebook: str
    what: str
    printed: float
    low: float
    high: float
    ours: float


def make_learner(optimizer: optim.Transform) -> ft.Learner:
    """The lesson's model, 784-50-10 with PyTorch's own initialisation."""
    dense = partial(nn.dense, weight=initializers.torch_default(), bias=initializers.torch_default_bias())
    model = nn.serial(dense(50), nn.relu, dense(10))
    return ft.Learner(model, losses.cross_entropy, optimizer, {"accuracy": metrics.accuracy})


def fit(rows: tuple, batch_size: int, epochs: int, lr: float | schedule.Schedule, jit: str) -> ft.train.History:
    """Train as the notebooks do, validating with twice the batch size."""
    train, valid = rows
    print(f"training: {epochs} epochs in batches of {batch_size}, learning rate {lr}", flush=True)
    learner = make_learner(optim.sgd(lr=lr))
    state = ft.init(learner, ft.random.key(0), train[:1])
    loaders = data.loaders(train, valid, batch_size)
    return ft.fit(learner, state, train=loaders[0], valid=loaders[1], epochs=epochs, jit=jit).history


def inputs_rows(train: data.ArrayDataset, valid: data.ArrayDataset, normalize: data.Normalizer) -> list[Row]:
    """Notebook 02: the statistics of the raw inputs, and of the validation inputs by those of training."""
    raw, checked = train[:][0], normalize(valid[:][0])
    return [
        Row("02", "raw mean", 0.1304, 0.1304, 0.1305, float(raw.mean())),
        Row("02", "raw std", 0.3073, 0.3072, 0.3074, float(raw.std())),
        Row("02", "valid mean, normalised by train", -0.0058, -0.0060, -0.0057, float(checked.mean())),
        Row("02", "valid std, normalised by train", 0.9924, 0.9923, 0.9925, float(checked.std())),
    ]


def untrained_row(train: data.ArrayDataset, jit: str) -> Row:
    """Notebook 03: the loss before training is about log(10)."""
    learner = make_learner(optim.identity)
    state = ft.init(learner, ft.random.key(0), train[:1])
    loss = ft.evaluate(learner, state, data.loader(train, data.sequential(1000)), jit=jit)["loss"]
    return Row("03", "untrained nll, 50,000 rows", 2.3019, 2.285, 2.340, loss)


def training_rows(rows: tuple, jit: str) -> list[Row]:
    """Notebooks 04 and 05: losses and accuracies after training."""
    of_04 = fit(rows, 64, 2, 0.5, jit)
    half, slow = fit(rows, 512, 3, 0.5, jit)[-1], fit(rows, 512, 3, 0.3, jit)[-1]
    annealed = schedule.join([0.3, 0.7], [schedule.cosine(0.3, 0.6), schedule.cosine(0.6, 0.2)])
    cosine = fit(rows, 512, 3, annealed, jit)[-1]
    return [
        Row("04", "epoch 1, train loss", 0.3112, 0.303, 0.332, of_04[0]["train/loss"]),
        Row("04", "epoch 1, train accuracy", 0.9052, 0.895, 0.908, of_04[0]["train/accuracy"]),
        Row("04", "epoch 2, train loss", 0.1440, 0.133, 0.153, of_04[1]["train/loss"]),
        Row("04", "epoch 2, train accuracy", 0.9572, 0.953, 0.961, of_04[1]["train/accuracy"]),
        Row("04", "epoch 1, valid loss", 0.1416, 0.138, 0.43, of_04[0]["valid/loss"]),
        Row("04", "epoch 2, valid loss", 0.2178, 0.11, 0.56, of_04[1]["valid/loss"]),
        Row("05", "lr 0.5, last train loss", 0.2342, 0.228, 0.253, half["train/loss"]),
        Row("05", "lr 0.5, valid loss", 0.2118, 0.192, 0.227, half["valid/loss"]),
        Row("05", "lr 0.5, valid accuracy", 0.9397, 0.935, 0.949, half["valid/accuracy"]),
        Row("05", "lr 0.3, last train loss", 0.3020, 0.284, 0.305, slow["train/loss"]),
        Row("05", "lr 0.3, valid loss", 0.2661, 0.243, 0.277, slow["valid/loss"]),
        Row("05", "cosine, last train loss", 0.2381, 0.228, 0.2505, cosine["train/loss"]),
        Row("05", "cosine, valid loss", 0.2132, 0.202, 0.2255, cosine["valid/loss"]),
        Row("05", "cosine, valid accuracy", 0.9400, 0.935, 0.945, cosine["valid/accuracy"]),
    ]


def show(rows: list[Row]) -> None:
    """Print the rows side by side."""
    table = Table("notebook", "what", "printed", "band", "functrain", "", box=None)
    for row in rows:
        verdict = "in the band" if row.low <= row.ours <= row.high else "OUTSIDE"
        band = f"{row.low:.4f} to {row.high:.4f}"
        table.add_row(row.notebook, row.what, f"{row.printed:.4f}", band, f"{row.ours:.4f}", verdict)
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder with the four IDX files")
    parser.add_argument("--download", action="store_true", help="fetch the files into the folder first")
    parser.add_argument("--jit", default="aten", help="aten, inductor, cudagraph, or no for plain Python")
    args = parser.parse_args()
    jit = False if args.jit == "no" else args.jit

    train, valid = data.mnist(args.data, download=args.download)
    normalize = data.fit_normalizer(train)
    rows = [*inputs_rows(train, valid, normalize), untrained_row(train, jit), *training_rows((train, valid), jit)]
    show(rows)
    outside = sum(not row.low <= row.ours <= row.high for row in rows)
    print(f"{len(rows) - outside} of {len(rows)} numbers are in their bands")
    sys.exit(1 if outside else 0)


if __name__ == "__main__":
    main()
