"""Peak memory of a training step of 50 million parameters with AdamW: parameters, moments, gradients and all between.

Measured from before the parameters are made to the highest point of a step, after warming up: the process's resident
memory on a CPU, the allocator's on CUDA. The check is the losses of the first steps.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

import functrain as ft
from benchmarks.entrant import Entrant, Target, Unavailable
from benchmarks.workloads._device import BACKENDS, DEVICE, ON_CUDA, synchronise, tolerance
from benchmarks.workloads._training import functrain_steps, module_steps
from functrain import losses, nn, optim

UNIT = (1.0, "MiB")
TOLERANCE = tolerance(1e-3)
WIDTH, LAYERS, BATCH, LR, WEIGHT_DECAY = 2048, 12, 16, 1e-6, 1e-2
MIB = 2**20


def _model(width: int) -> nn.Model:
    return nn.serial(*[nn.dense(width)] * LAYERS)


def _batch(width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(BATCH, width, generator=generator)
    return inputs.to(DEVICE), torch.arange(BATCH, device=DEVICE)


def _params(width: int) -> Any:
    # Drawn by PyTorch, in place: what functrain needs to initialise is not what is measured.
    generator = torch.Generator().manual_seed(1)

    def layer() -> dict[str, torch.Tensor]:
        weight = torch.empty(width, width).uniform_(-(3**0.5), 3**0.5, generator=generator).mul_(width**-0.5)
        return {"weight": weight.to(DEVICE), "bias": torch.zeros(width, device=DEVICE)}

    return {str(i): layer() for i in range(LAYERS)}


def reset_peak() -> None:
    """Begin to look for the highest point anew."""
    if ON_CUDA:
        synchronise()
        torch.cuda.reset_peak_memory_stats(DEVICE)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        raise Unavailable(f"the peak of the resident memory cannot be reset here: {error}") from None


def peak() -> float:
    """Return the highest point since the last reset, in bytes."""
    if ON_CUDA:
        synchronise()
        return torch.cuda.max_memory_allocated(DEVICE)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _measured(make: Callable[[int], Entrant]) -> Entrant:
    make(64).run()  # the libraries that a step needs are loaded, and its code compiled, before measuring
    reset_peak()
    begun = peak()
    entrant = make(WIDTH)

    def run() -> float:
        reset_peak()
        entrant.run()
        return (peak() - begun) / MIB

    return Entrant(run, entrant.check)


def _functrain(backend: str, width: int) -> Entrant:
    learner = ft.Learner(_model(width), losses.cross_entropy, optim.adamw(lr=LR, weight_decay=WEIGHT_DECAY))
    return functrain_steps(learner, _params(width), _batch(width), backend, count=1)


def _net(width: int) -> torch.nn.Module:
    net = torch.nn.Sequential(*[torch.nn.Linear(width, width, device=DEVICE) for _ in range(LAYERS)])
    net.load_state_dict(nn.to_state_dict(_params(width), {}), assign=True)
    return net.requires_grad_()


def _adamw(params: Any, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(params, lr=LR, weight_decay=WEIGHT_DECAY, **options)


def _module(options: dict[str, Any], width: int) -> Entrant:
    net = _net(width)
    return module_steps(net, _adamw(net.parameters(), **options), _batch(width), count=1)


class _Nothing:
    def step(self) -> None:
        """Do nothing: every parameter has been updated."""

    zero_grad = step


def _in_backward(width: int) -> Entrant:
    """Return PyTorch's entrant in which a gradient is used, and freed, as soon as it is there."""
    net = _net(width)
    optimizers = {p: _adamw([p], fused=True) for p in net.parameters()}

    def update(p: torch.Tensor) -> None:
        optimizers[p].step()
        optimizers[p].zero_grad()

    for p in optimizers:
        p.register_post_accumulate_grad_hook(update)
    return module_steps(net, _Nothing(), _batch(width), count=1)


ENTRANTS = {
    **{f"functrain, {backend}": partial(_measured, partial(_functrain, backend)) for backend in BACKENDS},
    "PyTorch, fused AdamW": partial(_measured, partial(_module, {"fused": True})),
    "PyTorch, AdamW": partial(_measured, partial(_module, {})),
    "PyTorch, fused AdamW in backward": partial(_measured, _in_backward),
}

TARGETS = [Target("functrain, aten", "PyTorch, fused AdamW", 1.05)]
