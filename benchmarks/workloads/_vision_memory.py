"""The peak memory of a training step of a network of `torch.nn`: functrain with donation, and PyTorch's fused AdamW.

Parameters, buffers and moments are counted, as the measurement begins before the network is made; a step of the same
network on smaller images has been taken before, so that the libraries are loaded.
"""

import ctypes
import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

import functrain as ft
from benchmarks.entrant import Entrant, Target
from benchmarks.workloads._device import DEVICE, ON_CUDA
from benchmarks.workloads._training import module_steps, steps_of
from benchmarks.workloads._vision import CLASSES, NETWORKS
from benchmarks.workloads.memory import MIB, peak, reset_peak
from functrain import optim

LR, WEIGHT_DECAY, BATCH, SIZE = 1e-4, 1e-2, 8, 64


def entrants(network: str) -> dict[str, Callable[[], Entrant]]:
    """Return the entrants of the workload of a network."""
    ways = {"functrain, aten": _functrain, "PyTorch, fused AdamW": _module}
    return {name: partial(_measured, partial(way, NETWORKS[network])) for name, way in ways.items()}


TARGETS = [Target("functrain, aten", "PyTorch, fused AdamW", 1.05)]


def _measured(make: Callable[[int], Entrant]) -> Entrant:
    make(2).run()
    gc.collect()
    if not ON_CUDA:
        ctypes.CDLL(None).malloc_trim(0)
    reset_peak()
    begun = peak()
    entrant = make(BATCH)

    def run() -> float:
        reset_peak()
        entrant.run()
        return (peak() - begun) / MIB

    return Entrant(run, entrant.check)


def _net(network: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    torch.manual_seed(0)
    return network().to(DEVICE)


def _batch(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(size, 3, SIZE, SIZE, generator=generator)
    return images.to(DEVICE), torch.arange(size, device=DEVICE) % CLASSES


def _module(network: Callable[[], torch.nn.Module], size: int) -> Entrant:
    net = _net(network)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    return module_steps(net, optimizer, _batch(size), count=1)


def _functrain(network: Callable[[], torch.nn.Module], size: int) -> Entrant:
    net = _net(network)
    transform = optim.adamw(lr=LR, weight_decay=WEIGHT_DECAY)
    params = {name: p.detach() for name, p in net.named_parameters()}
    state = params, {name: b for name, b in net.named_buffers()}, transform.init(params)
    del params
    net.to("meta")

    def step(state: Any, images: torch.Tensor, labels: torch.Tensor) -> tuple[Any, torch.Tensor]:
        params, buffers, moments = state

        def loss(params: Any) -> tuple[torch.Tensor, Any]:
            written = {name: b.clone() for name, b in buffers.items()}  # a module writes its statistics
            return F.cross_entropy(torch.func.functional_call(net, (params, written), (images,)), labels), written

        (value, buffers), gradients = ft.value_and_grad(loss, has_aux=True)(params)
        params, moments = optim.step(transform, gradients, moments, params)
        return (params, buffers, moments), value

    fast, batch = ft.jit(step, donate=0), _batch(size)

    def advance() -> torch.Tensor:
        nonlocal state
        state, value = fast(state, *batch)
        return value

    return steps_of(advance, count=1)
