"""Draws: a million uniform numbers, and dropout of a million elements and of a few thousand.

functrain draws from a key, as JAX does; PyTorch from a hidden generator. The check is the mean of the numbers, and the
part of the elements that dropout keeps, both one half.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

import functrain as ft
from benchmarks.entrant import Entrant, Target
from benchmarks.workloads._device import BACKENDS, DEVICE, jax_modules, synchronise
from benchmarks.workloads._training import average
from functrain import nn

UNIT = (1e3, "ms")
TOLERANCE = 0.05  # of the share that is kept of a few thousand elements
COUNT, TIMES = 1_000_000, 10
LARGE, SMALL = (1000, COUNT // 1000), (64, 50)


def _timed(draw: Callable[[], Any], part: Callable[[Any], Any], wait: Callable[[Any], Any] = synchronise) -> Entrant:
    wait(draw())
    return Entrant(lambda: average(draw, TIMES, wait), lambda: float(part(draw())))


def _kept(x: torch.Tensor) -> torch.Tensor:
    return (x > 0).float().mean()


def _jitted(draw: Callable, backend: str | None) -> Callable:
    return draw if backend is None else ft.engine.jit(draw, backend=backend)


def _uniform(backend: str | None) -> Entrant:
    key = ft.random.key(0).to(DEVICE)
    draw = _jitted(lambda key: ft.random.uniform(key, (COUNT,)), backend)
    return _timed(lambda: draw(key), torch.mean)


def _dropout(backend: str | None, shape: tuple[int, int] = LARGE) -> Entrant:
    key, x = ft.random.key(0).to(DEVICE), torch.ones(shape, device=DEVICE)
    layer = nn.dropout(0.5)
    draw = _jitted(lambda key, x: layer.apply({}, {}, x, nn.training(key))[0], backend)
    return _timed(lambda: draw(key, x), _kept)


def _torch_uniform() -> Entrant:
    return _timed(lambda: torch.rand(COUNT, device=DEVICE), torch.mean)


def _torch_dropout(shape: tuple[int, int] = LARGE) -> Entrant:
    x = torch.ones(shape, device=DEVICE)
    return _timed(lambda: F.dropout(x, 0.5), _kept)


def _jax_uniform() -> Entrant:
    jax, jnp, _ = jax_modules()
    key, draw = jax.random.key(0), jax.jit(lambda key: jax.random.uniform(key, (COUNT,)))
    return _timed(lambda: draw(key), jnp.mean, jax.block_until_ready)


def _jax_dropout() -> Entrant:
    jax, jnp, _ = jax_modules()
    key, x = jax.random.key(0), jnp.ones((1000, COUNT // 1000))

    @jax.jit
    def draw(key: Any, x: Any) -> Any:
        return jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x / 0.5, 0)

    return _timed(lambda: draw(key, x), lambda y: (y > 0).mean(), jax.block_until_ready)


ENTRANTS = {
    "uniform: functrain, eager": partial(_uniform, None),
    **{f"uniform: functrain, {backend}": partial(_uniform, backend) for backend in BACKENDS},
    "uniform: torch.rand": _torch_uniform,
    "uniform: JAX": _jax_uniform,
    "dropout: functrain, eager": partial(_dropout, None),
    **{f"dropout: functrain, {backend}": partial(_dropout, backend) for backend in BACKENDS},
    "dropout: PyTorch": _torch_dropout,
    "dropout: JAX": _jax_dropout,
    "dropout of 64 x 50: functrain, eager": partial(_dropout, None, SMALL),
    **{f"dropout of 64 x 50: functrain, {backend}": partial(_dropout, backend, SMALL) for backend in BACKENDS},
    "dropout of 64 x 50: PyTorch": partial(_torch_dropout, SMALL),
}

TARGETS = [
    Target("uniform: functrain, eager", "uniform: torch.rand", 6.0),
    Target("dropout: functrain, eager", "dropout: PyTorch", 1.0),
    Target("dropout: functrain, aten", "dropout: PyTorch", 1.0),
]
