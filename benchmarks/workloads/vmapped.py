"""64 runs of the lesson's MLP (8 first parameters x 8 rates, 20 steps): by vmap in one compiled call, or one by one.

All runs see the same batches. The check is the loss of every run at its last step.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import torch

import functrain as ft
from benchmarks.entrant import Entrant, Target
from benchmarks.workloads._device import DEVICE, jax_modules, synchronise, tolerance
from benchmarks.workloads._lesson import BATCH, arrays, first_params
from benchmarks.workloads._training import arrays_of
from functrain import losses, nn, optim

UNIT = (1e3, "ms")
TOLERANCE = tolerance(1e-3)
SEEDS, RATES, STEPS = 8, 8, 20


def _batches() -> tuple[torch.Tensor, torch.Tensor]:
    inputs, labels = arrays(BATCH * STEPS)
    return inputs.view(STEPS, BATCH, -1), labels.view(STEPS, BATCH)


def _starts() -> tuple[Any, torch.Tensor]:
    """Return the parameters and the rates of the runs, each with a row a run."""
    generator = torch.Generator().manual_seed(2)
    scales = 0.5 + torch.rand(SEEDS, generator=generator).to(DEVICE)
    rates = torch.logspace(-2, -0.5, RATES, device=DEVICE)
    scales, rates = scales.repeat_interleave(RATES), rates.repeat(SEEDS)
    rows = ft.tree.map(lambda p: torch.einsum("r,...->r...", scales, p), first_params())
    return rows, rates


def _learner(rate: Any) -> ft.Learner:
    return ft.Learner(nn.serial(nn.dense(50), nn.relu, nn.dense(10)), losses.cross_entropy, optim.sgd(lr=rate))


def _run() -> Callable[[Any, torch.Tensor, Any], torch.Tensor]:
    """Return the pure function (params, rate, batches) -> the loss of the last step."""
    batches = _batches()
    state = ft.init(_learner(0.1), ft.random.key(0), ft.tree.map(lambda column: column[0], batches))

    def run(params: Any, rate: torch.Tensor, batches: Any) -> torch.Tensor:
        step = ft.train_step(_learner(rate))
        _, logs = ft.scan(step, attrs.evolve(state, params=params), batches)
        return logs["loss"][-1].float()

    return run


def _functrain(backend: str, vmapped: bool) -> Entrant:
    run, (params, rates), batches = _run(), _starts(), _batches()
    if vmapped:
        together = ft.jit(
            lambda params, rates, batches: ft.vmap(partial(run, batches=batches))(params, rates), backend=backend
        )
        return _entrant(lambda: together(params, rates, batches))
    alone = ft.jit(run, backend=backend)
    each = list(zip(_rows(params), rates.unbind(), strict=True))
    return _entrant(lambda: torch.stack([alone(params, rate, batches) for params, rate in each]))


def _rows(params: Any) -> list[Any]:
    """Return the tree of each row, in memory of its own."""
    return [ft.tree.map(lambda column, row=row: column[row].clone(), params) for row in range(SEEDS * RATES)]


def _entrant(losses_of: Callable[[], torch.Tensor]) -> Entrant:
    last = losses_of().tolist()

    def timed() -> None:
        synchronise(losses_of())

    timed()
    return Entrant(timed, lambda: last)


def _jax() -> Entrant:
    jax, jnp, optax = jax_modules()

    def loss_of(params: Any, inputs: Any, labels: Any) -> Any:
        hidden = jax.nn.relu(inputs @ params["0"]["weight"].T + params["0"]["bias"])
        logits = hidden @ params["2"]["weight"].T + params["2"]["bias"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def run(params: Any, rate: Any, batches: Any) -> Any:
        def step(params: Any, batch: Any) -> Any:
            loss, grads = jax.value_and_grad(loss_of)(params, *batch)
            return jax.tree.map(lambda p, g: p - rate * g, params, grads), loss

        return jax.lax.scan(step, params, batches)[1][-1]

    together = jax.jit(jax.vmap(run, in_axes=(0, 0, None)))
    params, rates = _starts()
    start = jax.tree.map(jnp.asarray, (arrays_of(params), rates.cpu().numpy(), arrays_of(_batches())))
    last = together(*start).tolist()

    def timed() -> None:
        jax.block_until_ready(together(*start))

    return Entrant(timed, lambda: last)


ENTRANTS = {
    **{f"functrain, {b}, vmapped": partial(_functrain, b, True) for b in ("aten", "inductor")},
    **{f"functrain, {b}, one by one": partial(_functrain, b, False) for b in ("aten", "inductor")},
    "JAX, vmapped": _jax,
}

TARGETS = [
    Target(
        ("functrain, aten, vmapped", "functrain, inductor, vmapped"),
        ("functrain, aten, one by one", "functrain, inductor, one by one"),
        0.25,
    ),
    Target(("functrain, aten, vmapped", "functrain, inductor, vmapped"), "JAX, vmapped", 1.0),
]
