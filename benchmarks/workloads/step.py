"""A step of the lesson's MLP (784-50-10, batch 64, SGD): forward, loss, backward and update.

The check is the losses of the first steps.
"""

from functools import partial
from typing import Any

import torch

import functrain as ft
from benchmarks.entrant import Entrant, Target
from benchmarks.workloads._device import BACKENDS, jax_modules, tolerance
from benchmarks.workloads._lesson import BATCH, LR, arrays, first_params, module
from benchmarks.workloads._training import arrays_of, functrain_steps, jax_steps, module_steps
from functrain import losses, nn, optim

UNIT = (1e6, "us")
TOLERANCE = tolerance(1e-4)
COUNT = 400


def _functrain(backend: str | None) -> Entrant:
    model = nn.serial(nn.dense(50), nn.relu, nn.dense(10))
    learner = ft.Learner(model, losses.cross_entropy, optim.sgd(lr=LR))
    return functrain_steps(learner, first_params(), arrays(BATCH), backend, COUNT)


def _module(compiled: bool, **options: Any) -> Entrant:
    net = module()
    return module_steps(net, torch.optim.SGD(net.parameters(), lr=LR, **options), arrays(BATCH), COUNT, compiled)


def _jax() -> Entrant:
    jax, _, _ = jax_modules()

    def apply(params: Any, x: Any) -> Any:
        hidden = jax.nn.relu(x @ params["0"]["weight"].T + params["0"]["bias"])
        return hidden @ params["2"]["weight"].T + params["2"]["bias"]

    return jax_steps(apply, arrays_of(first_params()), lambda optax: optax.sgd(LR), arrays_of(arrays(BATCH)), COUNT)


ENTRANTS = {
    "functrain, eager": partial(_functrain, None),
    **{f"functrain, {backend}": partial(_functrain, backend) for backend in BACKENDS},
    "PyTorch": partial(_module, False),
    "PyTorch, fused SGD": partial(_module, False, fused=True),
    "PyTorch, torch.compile": partial(_module, True, fused=True),
    "JAX": _jax,
}

TARGETS = [Target("functrain, aten", "PyTorch", 0.6)]
