"""A jitted donated update of a 20-leaf tree of 4x4 tensors: what a call costs where there is next to nothing to do.

Every entrant computes p -> 0.9 p + 0.1 for each leaf, in the memory of the old one. The check is the sum of the leaves
after three updates.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import functrain as ft
from benchmarks.entrant import Entrant, Target
from benchmarks.workloads._device import BACKENDS, DEVICE, jax_modules, synchronise, tolerance

UNIT = (1e6, "us")
TOLERANCE = tolerance(1e-5)
CALLS, CHECKED = 3000, 3


def _first() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {f"leaf{i}": torch.randn(4, 4, generator=generator).to(DEVICE) for i in range(20)}


def _calls(update: Callable[[Any], Any], state: Any, total: Callable, wait: Callable[[Any], Any] = synchronise):
    for _ in range(CHECKED):
        state = update(state)
    sum_of_leaves = float(sum(total(p) for p in state.values()))
    for _ in range(CALLS):
        state = update(state)

    def run() -> float:
        nonlocal state
        begun = time.perf_counter()
        for _ in range(CALLS):
            state = update(state)
        wait(state)
        return (time.perf_counter() - begun) / CALLS

    return Entrant(run, lambda: sum_of_leaves)


def _functrain(backend: str) -> Entrant:
    update = ft.engine.jit(lambda tree: ft.tree.map(lambda p: 0.9 * p + 0.1, tree), donate=0, backend=backend)
    return _calls(update, _first(), torch.sum)


def _in_place(tree: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for p in tree.values():
        p.mul_(0.9).add_(0.1)
    return tree


def _functional(tree: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: 0.9 * p + 0.1 for name, p in tree.items()}


def _compiled(update: Callable) -> Entrant:
    return _calls(torch.compile(update), _first(), torch.sum)


def _foreach() -> Entrant:
    def update(tree: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        leaves = list(tree.values())
        torch._foreach_mul_(leaves, 0.9)
        torch._foreach_add_(leaves, 0.1)
        return tree

    return _calls(update, _first(), torch.sum)


def _jax() -> Entrant:
    jax, jnp, _ = jax_modules()

    @partial(jax.jit, donate_argnums=0)
    def update(tree: Any) -> Any:
        return jax.tree.map(lambda p: 0.9 * p + 0.1, tree)

    first = {name: jnp.asarray(p.cpu().numpy()) for name, p in _first().items()}
    return _calls(update, first, jnp.sum, jax.block_until_ready)


ENTRANTS = {
    **{f"functrain, {backend}": partial(_functrain, backend) for backend in BACKENDS},
    "torch.compile, in place": partial(_compiled, _in_place),
    "torch.compile, functional": partial(_compiled, _functional),
    "PyTorch, foreach in place": _foreach,
    "JAX": _jax,
}

OURS = tuple(f"functrain, {backend}" for backend in BACKENDS)
COMPILED = ("torch.compile, in place", "torch.compile, functional")
TARGETS = [Target(OURS, "JAX", 0.5), Target(OURS, COMPILED, 0.4)]
