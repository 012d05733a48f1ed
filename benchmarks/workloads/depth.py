"""The first step of networks of 10 to 1,000 dense layers with AdamW: what tracing, planning and compiling cost.

Each time the network and its step are new, in a process that has imported its libraries; what is timed is the first
call of the step. All weights are the identity, so that the loss, which is checked, is the same at any depth.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import torch

import functrain as ft
from benchmarks.entrant import Entrant, Target, clock
from benchmarks.workloads._device import DEVICE, jax_modules
from benchmarks.workloads._training import arrays_of
from functrain import losses, nn, optim

UNIT = (1.0, "s")
WIDTH, ROWS, LR = 16, 8, 1e-3


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    inputs = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0))
    return inputs.to(DEVICE), (torch.arange(ROWS) % WIDTH).to(DEVICE)


def _params(layers: int) -> dict[str, dict[str, torch.Tensor]]:
    return {
        str(i): {"weight": torch.eye(WIDTH, device=DEVICE), "bias": torch.zeros(WIDTH, device=DEVICE)}
        for i in range(layers)
    }


def _timed(prepare: Callable[[], Callable[[], float]]) -> Entrant:
    def run() -> float:
        first_step = prepare()
        begun = clock()
        first_step()
        return clock() - begun

    return Entrant(run, lambda: prepare()())


def _functrain(layers: int) -> Entrant:
    def prepare() -> Callable[[], float]:
        learner = ft.Learner(
            nn.serial(*[nn.dense(WIDTH) for _ in range(layers)]), losses.cross_entropy, optim.adamw(lr=LR)
        )
        batch = _batch()
        state = attrs.evolve(ft.init(learner, ft.random.key(0), batch), params=_params(layers))
        step = ft.jit(ft.train_step(learner), donate=0)
        return lambda: float(step(state, batch)[1]["loss"])

    return _timed(prepare)


def _jax(layers: int) -> Entrant:
    jax, jnp, optax = jax_modules()
    optimizer = optax.adamw(LR)

    def prepare() -> Callable[[], float]:
        params, (inputs, labels) = (jax.tree.map(jnp.asarray, arrays_of(part)) for part in (_params(layers), _batch()))

        def loss_of(params: Any) -> Any:
            x = inputs
            for layer in params.values():
                x = x @ layer["weight"].T + layer["bias"]
            return optax.softmax_cross_entropy_with_integer_labels(x, labels).mean()

        @partial(jax.jit, donate_argnums=0)
        def step(state: Any) -> Any:
            params, opt_state = state
            loss, grads = jax.value_and_grad(loss_of)(params)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), loss

        state = params, optimizer.init(params)
        return lambda: float(step(state)[1])

    return _timed(prepare)


ENTRANTS = {
    **{f"functrain, {layers} layers": partial(_functrain, layers) for layers in (10, 100, 400, 1000)},
    **{f"JAX, {layers} layers": partial(_jax, layers) for layers in (10, 100, 400)},
}
TARGETS = [
    *[Target(f"functrain, {layers} layers", f"JAX, {layers} layers", 1.0) for layers in (10, 100, 400)],
    Target("functrain, 1000 layers", None, 7.0),
]
