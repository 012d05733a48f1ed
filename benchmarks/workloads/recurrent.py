"""The gradient of a GRU (width 128, batch 16) over 512 steps, by all its weights.

The check is the loss and the sums of the absolute gradients.
"""

import math
from functools import partial
from typing import Any

import torch

import functrain as ft
from benchmarks.entrant import Entrant, Target
from benchmarks.workloads._device import BACKENDS, DEVICE, jax_modules, synchronise, tolerance

UNIT = (1e3, "ms")
TOLERANCE = tolerance(2e-3)
STEPS, BATCH, WIDTH = 512, 16, 128
NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


def _inputs() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((3 * WIDTH, WIDTH), (3 * WIDTH, WIDTH), (3 * WIDTH,), (3 * WIDTH,))
    bound = 1 / math.sqrt(WIDTH)
    weights = {n: (2 * torch.rand(s, generator=generator) - 1) * bound for n, s in zip(NAMES, shapes, strict=True)}
    xs = torch.randn(STEPS, BATCH, WIDTH, generator=generator)
    return {name: w.to(DEVICE) for name, w in weights.items()}, xs.to(DEVICE)


def _functrain(backend: str) -> Entrant:
    weights, xs = _inputs()

    def loss(p: dict[str, torch.Tensor], xs: torch.Tensor) -> torch.Tensor:
        def step(h: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            of_x = torch.nn.functional.linear(x, p["weight_ih_l0"], p["bias_ih_l0"]).chunk(3, 1)
            of_h = torch.nn.functional.linear(h, p["weight_hh_l0"], p["bias_hh_l0"]).chunk(3, 1)
            reset, update = torch.sigmoid(of_x[0] + of_h[0]), torch.sigmoid(of_x[1] + of_h[1])
            new = torch.tanh(of_x[2] + reset * of_h[2])
            h = new + update * (h - new)
            return h, h

        return (ft.scan(step, torch.zeros_like(xs[0]), xs)[1] ** 2).mean()

    return _entrant(ft.jit(ft.value_and_grad(loss), backend=backend), weights, xs)


def _entrant(f: Any, weights: dict[str, torch.Tensor], xs: torch.Tensor) -> Entrant:
    def check() -> list[float]:
        loss, gradients = f(weights, xs)
        return [float(loss.detach()), *(float(gradients[name].abs().sum()) for name in NAMES)]

    def run() -> None:
        f(weights, xs)
        synchronise()

    return Entrant(run, check)


def _module() -> Entrant:
    weights, xs = _inputs()
    gru = torch.nn.GRU(WIDTH, WIDTH).to(DEVICE)
    gru.load_state_dict(weights)

    def gradient(_weights: Any, xs: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss = (gru(xs)[0] ** 2).mean()
        return loss, dict(zip(NAMES, torch.autograd.grad(loss, [getattr(gru, n) for n in NAMES]), strict=True))

    return _entrant(gradient, weights, xs)


def _jax() -> Entrant:
    jax, jnp, _ = jax_modules()
    weights, xs = _inputs()
    weights, xs = {n: jnp.array(w.cpu().numpy()) for n, w in weights.items()}, jnp.array(xs.cpu().numpy())

    def loss(p: Any, xs: Any) -> Any:
        def step(h: Any, x: Any) -> Any:
            of_x = jnp.split(x @ p["weight_ih_l0"].T + p["bias_ih_l0"], 3, 1)
            of_h = jnp.split(h @ p["weight_hh_l0"].T + p["bias_hh_l0"], 3, 1)
            reset, update = jax.nn.sigmoid(of_x[0] + of_h[0]), jax.nn.sigmoid(of_x[1] + of_h[1])
            new = jnp.tanh(of_x[2] + reset * of_h[2])
            h = new + update * (h - new)
            return h, h

        return (jax.lax.scan(step, jnp.zeros_like(xs[0]), xs)[1] ** 2).mean()

    f = jax.jit(jax.value_and_grad(loss))

    def check() -> list[float]:
        value, gradients = f(weights, xs)
        return [float(value), *(float(jnp.abs(gradients[name]).sum()) for name in NAMES)]

    return Entrant(lambda: jax.block_until_ready(f(weights, xs)) and None, check)


ENTRANTS = {
    **{f"functrain, {backend}": partial(_functrain, backend) for backend in BACKENDS if backend != "cudagraph"},
    "PyTorch, nn.GRU": _module,
    "JAX, scan": _jax,
}

TARGETS = [Target("functrain, inductor", "JAX, scan", 1.0)]
