"""What the workloads that time training steps share: the same step in functrain, PyTorch and JAX.

All begin with the same parameters and train on one batch. The check is the losses of the first steps.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import attrs
import torch
import torch.nn.functional as F

import functrain as ft
from benchmarks.entrant import Entrant
from benchmarks.workloads._device import DEVICE, jax_modules, synchronise

CHECKED, WARMING = 3, 5


def steps_of(step: Callable[[], Any], count: int, wait: Callable[[Any], Any] = synchronise) -> Entrant:
    """Return the entrant that times `count` steps in a row, and measures the time of one.

    Args:
        step: does one step and returns its loss.
        count: steps in one measurement.
        wait: waits until the step that gave this loss is done.
    """
    losses = [float(step()) for _ in range(CHECKED)]
    for _ in range(WARMING):
        wait(step())

    return Entrant(lambda: average(step, count, wait), lambda: losses)


def average(call: Callable[[], Any], count: int, wait: Callable[[Any], Any] = synchronise) -> float:
    """Return the seconds that one of `count` calls in a row takes, until what the last returned is done."""
    begun = time.perf_counter()
    for _ in range(count):
        result = call()
    wait(result)
    return (time.perf_counter() - begun) / count


def functrain_steps(learner: ft.Learner, params: Any, batch: Any, backend: str | None, count: int) -> Entrant:
    """Return functrain's entrant: the whole step traced and compiled, the state donated; None for eager."""
    state = attrs.evolve(ft.init(learner, ft.random.key(0), batch), params=params)
    step = ft.train_step(learner)
    step = step if backend is None else ft.engine.jit(step, donate=0, backend=backend)

    def advance() -> torch.Tensor:
        nonlocal state
        state, logs = step(state, batch)
        return logs["loss"]

    return steps_of(advance, count)


def module_steps(
    net: torch.nn.Module,
    optimizer: Any,
    batch: Any,
    count: int,
    compiled: bool = False,
    dtype: torch.dtype | None = None,
) -> Entrant:
    """Return PyTorch's entrant: a module and an optimizer of its own, the forward and backward pass compiled or not.

    With a dtype, the forward pass runs in autocast to it.
    """

    def loss_of(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with nullcontext() if dtype is None else torch.autocast(DEVICE.type, dtype):
            return F.cross_entropy(net(inputs).flatten(0, -2), targets.flatten())

    if compiled:
        loss_of = torch.compile(loss_of)

    def advance() -> torch.Tensor:
        loss = loss_of(*batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return steps_of(advance, count)


def jax_steps(
    apply: Callable[[Any, Any], Any], params: Any, optimizer: Callable[[Any], Any], batch: Any, count: int
) -> Entrant:
    """Return JAX's entrant: the whole step jitted, parameters and optimizer state donated.

    Args:
        apply: (params, inputs) -> predictions.
        params: a tree of NumPy arrays.
        optimizer: optax -> a transformation of it.
        batch: the inputs and the targets, NumPy arrays.
        count: steps in one measurement.
    """
    jax, jnp, optax = jax_modules()
    transform = optimizer(optax)

    def loss_of(params: Any, inputs: Any, targets: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(apply(params, inputs), targets).mean()

    @partial(jax.jit, donate_argnums=0)
    def step(state: Any, inputs: Any, targets: Any) -> Any:
        params, opt_state = state
        loss, grads = jax.value_and_grad(loss_of)(params, inputs, targets)
        updates, opt_state = transform.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    params = jax.tree.map(jnp.asarray, params)
    state, batch = (params, transform.init(params)), jax.tree.map(jnp.asarray, batch)

    def advance() -> Any:
        nonlocal state
        state, loss = step(state, *batch)
        return loss

    return steps_of(advance, count, lambda loss: jax.block_until_ready((state, loss)))


def arrays_of(values: Any) -> Any:
    """Return a tree of tensors as one of NumPy arrays."""
    return ft.tree.map(lambda t: t.cpu().numpy(), values)
