"""Train a classifier of real handwritten digits: the whole of functrain in one short script.

    python examples/digits.py [--out DIR] [--seed N]

It shows progress and a table, and writes a picture of the losses and the learning rate.
"""

import argparse
from pathlib import Path

import functrain as ft
from functrain import callbacks, data, losses, metrics, nn, optim, plot, schedule


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("."), help="the folder for the picture")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    train, valid = data.digits()

    model = nn.serial(nn.dense(128), nn.relu, nn.dropout(0.1), nn.dense(10))
    learner = ft.Learner(
        model=model,
        loss=losses.cross_entropy,
        optimizer=optim.sgd(lr=schedule.one_cycle(0.05, 0.2, 0.001), momentum=0.9),
        metrics={"accuracy": metrics.accuracy},
    )

    result = ft.fit(
        learner,
        ft.init(learner, ft.random.key(args.seed), train[:1]),
        train=data.loader(train, data.shuffled(batch_size=64)),
        valid=data.loader(valid, data.sequential(batch_size=128)),
        epochs=20,
        callbacks=[callbacks.progress(), callbacks.record(), callbacks.early_stopping("valid/loss", patience=8)],
    )

    print(result.history)
    if result.stopped:
        print(result.stopped)
    accuracy = result.history[-1]["valid/accuracy"]
    print(f"validation accuracy {accuracy:.4f}")

    picture = args.out / "digits.png"
    plot.history(result.memory["record"], only=("loss", "accuracy", "lr")).savefig(picture)
    print(f"wrote {picture}")


if __name__ == "__main__":
    main()
