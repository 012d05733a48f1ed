"""A step of sharpness-aware minimization of the lesson's MLP (784-50-10, batch 64): two gradients and an update by SGD.

functrain's is one compiled step. PyTorch's is the loop that one writes by hand, with `foreach` operations: up along the
gradients, a second pass, and back. The check is the losses of the first steps.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

import functrain as ft
from benchmarks.entrant import Entrant, Target
from benchmarks.workloads._device import BACKENDS, tolerance
from benchmarks.workloads._lesson import BATCH, LR, arrays, first_params, module
from benchmarks.workloads._training import functrain_steps, steps_of
from functrain import losses, nn, optim

UNIT = (1e6, "us")
TOLERANCE = tolerance(1e-4)
COUNT, RHO, MOMENTUM = 300, 0.05, 0.9


def _functrain(backend: str | None) -> Entrant:
    model = nn.serial(nn.dense(50), nn.relu, nn.dense(10))
    optimizer = optim.sam(optim.sgd(LR, momentum=MOMENTUM), RHO)
    return functrain_steps(
        ft.Learner(model, losses.cross_entropy, optimizer), first_params(), arrays(BATCH), backend, COUNT
    )


def _pytorch(compiled: bool, **options: Any) -> Entrant:
    net, (inputs, labels) = module(), arrays(BATCH)
    params = list(net.parameters())
    optimizer = torch.optim.SGD(params, lr=LR, momentum=MOMENTUM, **options)

    def loss_of(inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(net(inputs), labels)

    run = torch.compile(loss_of) if compiled else loss_of

    def gradients() -> torch.Tensor:
        optimizer.zero_grad()
        loss = run(inputs, labels)
        loss.backward()
        return loss.detach()

    @torch.no_grad()
    def climb() -> list[torch.Tensor]:
        grads = [p.grad for p in params if p.grad is not None]
        norm = torch.stack(torch._foreach_norm(grads)).norm()
        way = torch._foreach_mul(grads, RHO / (norm + 1e-12))
        torch._foreach_add_(params, way)
        return list(way)

    def advance() -> torch.Tensor:
        loss = gradients()
        way = climb()
        gradients()
        with torch.no_grad():
            torch._foreach_sub_(params, way)
        optimizer.step()
        return loss

    return steps_of(advance, COUNT)


ENTRANTS = {
    "functrain, eager": partial(_functrain, None),
    **{f"functrain, {backend}": partial(_functrain, backend) for backend in BACKENDS},
    "PyTorch, foreach": partial(_pytorch, False, foreach=True),
    "PyTorch, torch.compile": partial(_pytorch, True, foreach=True),
}

TARGETS = [Target("functrain, aten", "PyTorch, foreach", 1.0)]
