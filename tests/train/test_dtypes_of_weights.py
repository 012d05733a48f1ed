"""Weights weigh by their values, whatever their dtype: sums of those of float16, too, which are beyond its range."""

import pytest
import torch

import functrain as ft
from functrain import data, losses, metrics, nn, optim, tree

ROWS, GENERATOR = 24, torch.Generator().manual_seed(4)
X = torch.randn(ROWS, 4, generator=GENERATOR)
Y = (X.sum(1) > 0).long()
VALUES = {
    torch.float64: lambda n: torch.arange(n) * 0.25,
    torch.float16: lambda n: 4096.0 * (torch.arange(n) % 9 + 7),
    torch.bfloat16: lambda n: 2.0**7 + torch.arange(n) % 100,
    torch.uint8: lambda n: 200 + torch.arange(n) % 56,
    torch.int8: lambda n: 100 + torch.arange(n) % 28,
    torch.int64: lambda n: torch.arange(n) % 5,
    torch.bool: lambda n: torch.arange(n) % 3 > 0,
}
"""Weights that float32 has as exactly, many of which their own dtype has not the sum of."""


def mean_of(step):
    return ft.log(step, "seen", losses.weighted_mean(step.prediction[:, 0], step.batch.weight))


def by_parts(prediction, target):
    return {"loss": losses.cross_entropy(prediction, target), "size": prediction.square().sum(1)}


def module():
    torch.manual_seed(0)
    norms = torch.nn.BatchNorm1d(4), torch.nn.Unflatten(1, (2, 2)), torch.nn.InstanceNorm1d(2, track_running_stats=True)
    return nn.from_module(torch.nn.Sequential(*norms, torch.nn.Flatten(), torch.nn.Linear(4, 2)))


LEARNERS = {
    "batch norm": lambda: (nn.serial(nn.dense(5), nn.batch_norm(), nn.dense(2)), optim.sgd(0.1)),
    "a module": lambda: (module(), optim.sgd(0.1)),
    "accumulate": lambda: (nn.dense(2), optim.accumulate(2, optim.adam(0.1))),
    "each example": lambda: (nn.dense(2), optim.chain(optim.clip_per_example(0.5), optim.sgd(0.1))),
    "sharpness": lambda: (nn.dense(2), optim.sam(optim.sgd(0.1))),
}


def weighted(weight):
    return data.loader(data.ArrayDataset((X, Y, weight)), data.sequential(7, remainder="keep"))


DTYPES = pytest.mark.parametrize("dtype", VALUES, ids=lambda dtype: str(dtype).removeprefix("torch."))


@DTYPES
@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.parametrize("name", LEARNERS)
def test_a_fit_is_the_same_by_weights_of_any_dtype(name, jit, dtype):
    model, optimizer = LEARNERS[name]()
    learner = ft.Learner(model, by_parts, optimizer, {"accuracy": metrics.accuracy})
    state = ft.init(learner, ft.random.key(0), (X[:2], Y[:2]))
    log = ft.Callback("log", {"after_step": mean_of}, phases=("train", "valid"))
    runs = []
    for weight in (VALUES[dtype](ROWS).to(dtype), VALUES[dtype](ROWS).to(dtype).float()):
        batches = weighted(weight)
        run = ft.fit(learner, state, train=batches, valid=batches, epochs=2, callbacks=[log], jit=jit)
        runs.append((run.state, [{name: torch.tensor(value) for name, value in row.items()} for row in run.history]))
    assert tree.differences(*runs, rtol=1e-5, atol=1e-6) == []


@DTYPES
@pytest.mark.parametrize("jit", [False, "aten"])
def test_the_logs_of_a_loop_too(jit, dtype):
    def step(carry, batch):
        return carry + 1, {"seen": batch.input.mean()}

    both = (VALUES[dtype](ROWS).to(dtype), VALUES[dtype](ROWS).to(dtype).float())
    options = dict(key=ft.random.key(0), epochs=1, jit=jit)
    runs = [ft.loop(step, torch.tensor(0), train=weighted(weight), **options) for weight in both]
    assert runs[0].history["train/seen"] == pytest.approx(runs[1].history["train/seen"], rel=1e-6)
