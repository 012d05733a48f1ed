"""The gradient of the last loss by the learning rate through 200 steps of the lesson's MLP (784-50-10, batch 64).

The check is the loss after the steps and its derivative by the rate.
"""

from functools import partial
from typing import Any

import torch

import functrain as ft
from benchmarks.entrant import Entrant, Target
from benchmarks.workloads._device import BACKENDS, DEVICE, jax_modules, synchronise, tolerance
from benchmarks.workloads._lesson import BATCH, arrays, first_params
from benchmarks.workloads._training import arrays_of

UNIT = (1e3, "ms")
TOLERANCE = tolerance(1e-2)
STEPS, LR = 200, 0.02


def _functrain(backend: str) -> Entrant:
    inputs, labels = arrays(STEPS * BATCH)
    rows = inputs.unflatten(0, (STEPS, BATCH)), labels.unflatten(0, (STEPS, BATCH))

    def loss(p: Any, batch: Any) -> torch.Tensor:
        hidden = torch.relu(torch.nn.functional.linear(batch[0], p["0"]["weight"], p["0"]["bias"]))
        prediction = torch.nn.functional.linear(hidden, p["2"]["weight"], p["2"]["bias"])
        return torch.nn.functional.cross_entropy(prediction, batch[1])

    def trained(lr: torch.Tensor, params: Any, rows: Any) -> torch.Tensor:
        def step(p: Any, batch: Any) -> tuple[Any, None]:
            gradients = ft.grad(loss)(p, batch)
            return ft.tree.map(lambda w, g: w - lr * g, p, gradients), None

        return loss(ft.scan(step, params, rows)[0], (rows[0][0], rows[1][0]))

    f = ft.jit(ft.value_and_grad(trained), backend=backend)
    lr, params = torch.tensor(LR, device=DEVICE), first_params()

    def run() -> None:
        f(lr, params, rows)
        synchronise()

    return Entrant(run, lambda: [float(x) for x in f(lr, params, rows)])


def _jax() -> Entrant:
    jax, jnp, _ = jax_modules()
    inputs, labels = arrays_of(arrays(STEPS * BATCH))
    rows = inputs.reshape(STEPS, BATCH, -1), labels.reshape(STEPS, BATCH)

    def loss(p: Any, batch: Any) -> Any:
        hidden = jax.nn.relu(batch[0] @ p["0"]["weight"].T + p["0"]["bias"])
        prediction = hidden @ p["2"]["weight"].T + p["2"]["bias"]
        return -jnp.take_along_axis(jax.nn.log_softmax(prediction), batch[1][:, None], 1).mean()

    def trained(lr: Any, params: Any, rows: Any) -> Any:
        def step(p: Any, batch: Any) -> tuple[Any, None]:
            return jax.tree.map(lambda w, g: w - lr * g, p, jax.grad(loss)(p, batch)), None

        return loss(jax.lax.scan(step, params, rows)[0], (rows[0][0], rows[1][0]))

    f = jax.jit(jax.value_and_grad(trained))
    lr, params = jnp.float32(LR), arrays_of(first_params())
    return Entrant(
        lambda: jax.block_until_ready(f(lr, params, rows)) and None, lambda: [float(x) for x in f(lr, params, rows)]
    )


ENTRANTS = {
    **{f"functrain, {backend}": partial(_functrain, backend) for backend in BACKENDS if backend != "cudagraph"},
    "JAX, scan": _jax,
}

TARGETS = [Target("functrain, inductor", "JAX, scan", 1.0)]
