"""From the call of `fit` to the end of its first step, in a fresh process: the lesson's model, default settings.

The process has imported its libraries and made data and state. functrain's time is that of the whole `fit` up to
there, with its checks and the order of the epoch; JAX's and PyTorch's that of one call of the jitted step. Compiled
code that is kept on disk by default (Inductor's) is there. The check is the last bias after one step.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.entrant import Entrant, Target
from benchmarks.workloads._device import DEVICE, jax_modules, synchronise, tolerance
from benchmarks.workloads._lesson import BATCH, LR, arrays, first_params, module

UNIT = (1.0, "s")
TOLERANCE = tolerance(1e-4)

Done = Callable[[Any], None]
"""What is called with the last bias at the end of the first step."""


def _functrain(settings: dict[str, Any], in_order: bool, done: Done) -> Callable[[], None]:
    import attrs

    import functrain as ft
    from functrain import data, losses, metrics, nn, optim

    rows = data.ArrayDataset(arrays())
    model = nn.serial(nn.dense(50), nn.relu, nn.dense(10))
    learner = ft.Learner(model, losses.cross_entropy, optim.sgd(lr=LR), {"accuracy": metrics.accuracy})
    state = attrs.evolve(ft.init(learner, ft.random.key(0), rows[:1]), params=first_params())
    loader = data.loader(rows, (data.sequential if in_order else data.shuffled)(BATCH))

    def stop(run: ft.Run) -> ft.Stop:
        done(run.state.params["2"]["bias"])
        return ft.Stop(run, scope="fit", reason="one step is enough")

    first = ft.Callback("first", {"after_chunk": stop}, keeps_state=False, reads_logs=False)
    # By default a call is several steps, all of which are timed; what is checked is the first alone.
    chunk = {"chunk": 1} if in_order else {}
    return lambda: ft.fit(learner, state, train=loader, epochs=1, callbacks=[first], **settings, **chunk) and None


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    inputs, labels = arrays()
    return inputs[:BATCH], labels[:BATCH]


def _module(in_order: bool, done: Done) -> Callable[[], None]:
    inputs, labels = _batch()
    net = module()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    loss_of = torch.compile(lambda x, y: F.cross_entropy(net(x), y))

    def train() -> None:
        loss_of(inputs, labels).backward()
        optimizer.step()
        done(net[2].bias.detach())

    return train


def _jax(in_order: bool, done: Done) -> Callable[[], None]:
    jax, jnp, optax = jax_modules()
    optimizer = optax.sgd(LR)

    def loss_of(params: Any, x: Any, y: Any) -> Any:
        hidden = jax.nn.relu(x @ params["0"]["weight"].T + params["0"]["bias"])
        prediction = hidden @ params["2"]["weight"].T + params["2"]["bias"]
        return optax.softmax_cross_entropy_with_integer_labels(prediction, y).mean(), prediction

    @partial(jax.jit, donate_argnums=0)
    def step(state: Any, x: Any, y: Any) -> Any:
        params, opt_state = state
        (loss, prediction), grads = jax.value_and_grad(loss_of, has_aux=True)(params, x, y)
        updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state), loss, (prediction.argmax(1) == y).mean()

    inputs, labels = (jnp.asarray(array.cpu().numpy()) for array in _batch())
    params = jax.tree.map(lambda p: jnp.asarray(p.cpu().numpy()), first_params())
    state = (params, optimizer.init(params))

    def train() -> None:
        (params, _), *_ = jax.block_until_ready(step(state, inputs, labels))
        done(params["2"]["bias"])

    return train


WAYS: dict[str, Callable[..., Callable[[], None]]] = {
    "functrain": partial(_functrain, {}),
    "functrain, inductor": partial(_functrain, {"jit": "inductor"}),
    "PyTorch, torch.compile": _module,
    "JAX": _jax,
}


def _first_step(name: str) -> None:
    """Print how long the first step took in this process, and leave it."""

    def done(_bias: Any) -> None:
        synchronise()
        print(time.perf_counter() - begun, flush=True)
        os._exit(0)

    train = WAYS[name](False, done)
    if DEVICE.type == "cuda":
        torch.zeros(1, device=DEVICE).sum().item()  # the device is up
    begun = time.perf_counter()
    train()


def _entrant(name: str) -> Entrant:
    found: list[float] = []
    WAYS[name](True, lambda bias: found.extend(bias.tolist()))()

    def run() -> float:
        command = [sys.executable, "-m", "benchmarks.workloads.first_step", name]
        return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)

    run()  # what is kept on disk is there, and files are in the page cache
    return Entrant(run, lambda: found)


ENTRANTS = {name: partial(_entrant, name) for name in WAYS}
TARGETS = [Target("functrain", None, 0.3), Target("functrain", "JAX", 0.5)]

if __name__ == "__main__":
    _first_step(sys.argv[1])
