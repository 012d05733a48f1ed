"""A script as a user writes it, for pyright: what a type checker and an editor infer of each value.

`pyright` runs over it (see pyproject.toml); each `assert_type` is the claim that inference says exactly this.
"""

from collections.abc import Callable
from typing import Any, assert_type

import torch
from torch import Tensor

import functrain as ft
from functrain import callbacks, data, losses, metrics, nn, optim, schedule

train, valid = data.digits()
assert_type(train, data.ArrayDataset)

model = nn.serial(nn.dense(50), nn.relu, nn.dropout(0.1), head=nn.dense(10))
assert_type(model, nn.Model)

rate = schedule.join([0.3, 0.7], [schedule.cosine(0.3, 0.6), schedule.cosine(0.6, 0.2)])
assert_type(rate, schedule.Schedule)
assert_type(2 * rate, schedule.Schedule)
optimizer = optim.sgd(lr=rate, momentum=0.9)
assert_type(optimizer, optim.Transform)

learner = ft.Learner(model, losses.cross_entropy, optimizer, metrics={"accuracy": metrics.accuracy})
key = ft.random.key(0)
assert_type(key, Tensor)
state = ft.init(learner, key, train[:1])
assert_type(state, ft.TrainState)
assert_type(state.params, dict[str, Any])
assert_type(state.step, Tensor)

loader = data.loader(train, data.shuffled(batch_size=64))
assert_type(loader, data.Loader)
assert_type(data.one_batch(loader), data.Batch)

run = ft.fit(
    learner,
    state,
    train=loader,
    valid=data.loader(valid, data.sequential(batch_size=128)),
    epochs=3,
    callbacks=[callbacks.progress(), callbacks.early_stopping("valid/loss", patience=2)],
)
assert_type(run, ft.Run)
assert_type(run.history, ft.train.History)
assert_type(run.epochs, int)
assert_type(run.progress, schedule.Progress)
assert_type([row["train/loss"] for row in run.history], list[Any])

step = ft.train_step(learner)
assert_type(step, Callable[[ft.TrainState, Any], tuple[ft.TrainState, dict[str, Tensor]]])
state, logs = step(state, data.one_batch(loader))
assert_type(logs["loss"], Tensor)
assert_type(ft.evaluate(learner, state, loader), dict[str, float])

params, buffers = model.init(key, train[:1][0])
y, buffers = model.apply(params, buffers, torch.zeros(3, 64))
assert_type(buffers, nn.Buffers)


def objective(weights: nn.Params, x: Tensor) -> Tensor:
    return model.apply(weights, buffers, x)[0].square().mean()


fast = ft.jit(objective)
assert_type(fast(params, torch.zeros(3, 64)), Tensor)
assert_type(ft.vmap(objective, in_dims=(None, 0))(params, torch.zeros(3, 1, 64)), Tensor)
grads = ft.grad(objective)(params, torch.zeros(3, 64))
quick = ft.jit(step, donate=0)
assert_type(quick(state, data.one_batch(loader)), tuple[ft.TrainState, dict[str, Tensor]])
assert_type(ft.tree.paths(params), list[str])
assert_type(ft.tree.size(params), int)
a, b = ft.random.split(key)
assert_type(a, Tensor)
assert_type(ft.random.normal(key, (3, 4)), Tensor)


def after_epoch(run: ft.Run) -> ft.Run | ft.Stop | None:
    """End the fit at the third epoch."""
    return ft.Stop(run, reason="enough") if run.epoch == 2 else None


enough = ft.Callback("enough", {"after_epoch": after_epoch})
assert_type(enough, ft.Callback)
