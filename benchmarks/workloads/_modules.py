"""What the workloads of `models` share: a training step of somebody's module, its own way and as a pure function.

The module is brought by `nn.from_module` and trained with AdamW; PyTorch trains it in place, with its fused optimizer,
the forward and backward pass compiled by `torch.compile` or not. Both begin with the same values. With dropout the
entrants draw other masks, so that their losses agree but roughly.
"""

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import functrain as ft
from benchmarks.entrant import Entrant, Target, Unavailable
from benchmarks.workloads._device import DEVICE, synchronise
from benchmarks.workloads._training import steps_of
from functrain import losses, nn, optim

UNIT = (1e3, "ms")
TOLERANCE = 0.05
LR, WEIGHT_DECAY, COUNT = 1e-4, 1e-2, 5
CLASSES, VOCABULARY, ROWS, CONTEXT, IMAGE = 10, 1000, 8, 128, 64
EAGER, COMPILED = "PyTorch, fused AdamW", "torch.compile, fused AdamW"
TARGETS = [
    Target("functrain, aten", EAGER, 1.0),
    Target("functrain, inductor", COMPILED, 1.0),
    Target("functrain, eager", EAGER, 1.4),
]

Batch = tuple[Any, torch.Tensor]


def entrants(
    make: Callable[[], torch.nn.Module], batch: Callable[[], Batch], out: Callable[[Any], torch.Tensor] | None = None
) -> dict[str, Callable[[], Entrant]]:
    """Return the entrants of a module.

    Args:
        make: () -> the module, drawn from PyTorch's global generator.
        batch: () -> (input, labels); a dict is the input by name.
        out: the module's result -> the logits; None where it returns them.
    """
    return {
        "functrain, eager": partial(_functrain, make, batch, out, None),
        **{f"functrain, {backend}": partial(_functrain, make, batch, out, backend) for backend in ("aten", "inductor")},
        EAGER: partial(_module, make, batch, out, compiled=False),
        COMPILED: partial(_module, make, batch, out, compiled=True),
    }


def transformer(kind: str, head: str, **config: Any) -> torch.nn.Module:
    """Return a model of `transformers` with random values."""
    if importlib.util.find_spec("transformers") is None:
        raise Unavailable("transformers is not installed")
    import transformers

    return getattr(transformers, kind + head)(getattr(transformers, f"{kind}Config")(**config))


def logits(output: Any) -> torch.Tensor:
    """Return the logits of what a model of `transformers` returns."""
    return output.logits


def images() -> Batch:
    """Return random images and labels."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(ROWS, 3, IMAGE, IMAGE, generator=generator), torch.arange(ROWS) % CLASSES


def pixels() -> Batch:
    """Return random images, by the name that `transformers` has for them, and labels."""
    x, y = images()
    return {"pixel_values": x}, y


def tokens() -> Batch:
    """Return random texts and a label for each."""
    generator = torch.Generator().manual_seed(1)
    return {"input_ids": torch.randint(2, VOCABULARY, (ROWS, CONTEXT), generator=generator)}, torch.arange(ROWS) % 2


def next_tokens() -> Batch:
    """Return random texts and the token that follows each."""
    generator = torch.Generator().manual_seed(1)
    text = torch.randint(2, VOCABULARY, (ROWS, CONTEXT + 1), generator=generator)
    return {"input_ids": text[:, :-1].contiguous()}, text[:, 1:].contiguous()


def _drawn(make: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    torch.manual_seed(0)
    return make().to(DEVICE).train()


def _functrain(make: Callable, batch: Callable, out: Callable | None, backend: str | None) -> Entrant:
    model = nn.from_module(_drawn(make), out=out)
    learner = ft.Learner(model, losses.cross_entropy, optim.adamw(lr=LR, weight_decay=WEIGHT_DECAY))
    rows = ft.tree.to(batch(), DEVICE)
    state = ft.init(learner, ft.random.key(0), rows)
    step = ft.train_step(learner)
    step = step if backend is None else ft.jit(step, donate=0, backend=backend)

    def advance() -> torch.Tensor:
        nonlocal state
        state, logs = step(state, rows)
        return logs["loss"]

    return steps_of(advance, COUNT, synchronise)


def _module(make: Callable, batch: Callable, out: Callable | None, compiled: bool) -> Entrant:
    net = _drawn(make)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    inputs, labels = ft.tree.to(batch(), DEVICE)

    def loss_of() -> torch.Tensor:
        y = net(**inputs) if isinstance(inputs, dict) else net(inputs)
        scores = y if out is None else out(y)
        return torch.nn.functional.cross_entropy(scores.flatten(0, -2), labels.flatten())

    loss_of = torch.compile(loss_of) if compiled else loss_of

    def advance() -> torch.Tensor:
        loss = loss_of()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return steps_of(advance, COUNT)
