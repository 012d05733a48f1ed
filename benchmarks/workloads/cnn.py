"""A step of a CNN (channels 8, 16, 32, 32, stride 2, pooled, linear; batch 512 of 28x28) with AdamW.

The check is the losses of the first steps.
"""

import itertools
from functools import partial
from typing import Any

import torch

import functrain as ft
from benchmarks.entrant import Entrant, Target
from benchmarks.workloads._device import BACKENDS, DEVICE, jax_modules, tolerance
from benchmarks.workloads._training import arrays_of, functrain_steps, jax_steps, module_steps
from functrain import losses, nn, optim

UNIT = (1e3, "ms")
TOLERANCE = tolerance(1e-3)
CHANNELS, KERNELS, CLASSES, BATCH, COUNT = (8, 16, 32, 32), (5, 3, 3, 3), 10, 512, 10
SHAPES = tuple(zip(CHANNELS, KERNELS, strict=True))
LR, WEIGHT_DECAY = 1e-3, 1e-2

CONVOLUTIONS = [nn.conv(out, kernel, stride=2, padding=kernel // 2) for out, kernel in SHAPES]
MODEL = nn.serial(
    *itertools.chain.from_iterable((convolution, nn.relu) for convolution in CONVOLUTIONS),
    nn.global_avg_pool,
    nn.dense(CLASSES),
)


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, 1, 28, 28, generator=generator)
    labels = torch.randint(0, CLASSES, (BATCH,), generator=generator)
    return images.to(DEVICE), labels.to(DEVICE)


def _params() -> Any:
    return ft.tree.to(MODEL.init(ft.random.key(1), torch.zeros(1, 1, 28, 28))[0], DEVICE)


def _functrain(backend: str) -> Entrant:
    learner = ft.Learner(MODEL, losses.cross_entropy, optim.adamw(lr=LR, weight_decay=WEIGHT_DECAY))
    return functrain_steps(learner, _params(), _batch(), backend, COUNT)


class _GlobalMean(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def _module(compiled: bool) -> Entrant:
    layers, channels = [], 1
    for out, kernel in SHAPES:
        layers += [torch.nn.Conv2d(channels, out, kernel, stride=2, padding=kernel // 2), torch.nn.ReLU()]
        channels = out
    net = torch.nn.Sequential(*layers, _GlobalMean(), torch.nn.Linear(channels, CLASSES)).to(DEVICE)
    net.load_state_dict(nn.to_state_dict(_params(), {}))
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    return module_steps(net, optimizer, _batch(), COUNT, compiled)


def _jax() -> Entrant:
    jax, _, _ = jax_modules()
    params = arrays_of(_params())
    head = str(2 * len(CHANNELS) + 1)
    # Channels last, as is usual in JAX, and quicker there.
    kernels = {name: layer["weight"].transpose(2, 3, 1, 0) for name, layer in params.items() if name != head}
    params = {**params, **{name: {**params[name], "weight": kernel} for name, kernel in kernels.items()}}

    def apply(params: Any, x: Any) -> Any:
        for i, kernel in enumerate(KERNELS):
            layer, padding = params[str(2 * i)], (kernel // 2, kernel // 2)
            x = jax.lax.conv_general_dilated(
                x, layer["weight"], (2, 2), (padding, padding), dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.relu(x + layer["bias"])
        return x.mean((1, 2)) @ params[head]["weight"].T + params[head]["bias"]

    images, labels = arrays_of(_batch())
    return jax_steps(apply, params, _adamw, (images.transpose(0, 2, 3, 1), labels), COUNT)


def _adamw(optax: Any) -> Any:
    return optax.adamw(LR, weight_decay=WEIGHT_DECAY)


ENTRANTS = {
    **{f"functrain, {backend}": partial(_functrain, backend) for backend in BACKENDS},
    "PyTorch, fused AdamW": partial(_module, False),
    "PyTorch, torch.compile": partial(_module, True),
    "JAX": _jax,
}

OURS = tuple(f"functrain, {backend}" for backend in BACKENDS)
TARGETS = [Target(OURS, ("PyTorch, fused AdamW", "PyTorch, torch.compile"), 1.0), Target(OURS, "JAX", 0.6)]
