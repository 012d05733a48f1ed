"""One update of a tree of parameters by a functrain optimizer and by PyTorch's."""

from collections.abc import Callable
from typing import Any

import torch

import functrain as ft
from benchmarks.entrant import Entrant, clock
from functrain import optim

Shapes = list[tuple[int, ...]]


def _drawn(shapes: Shapes, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def _tree(shapes: Shapes, seed: int) -> dict[str, torch.Tensor]:
    return {f"leaf{k}": leaf for k, leaf in enumerate(_drawn(shapes, seed))}


def _entrant(update: Callable[[], None], leaves: Callable[[], Any], calls: int) -> Entrant:
    """Return the entrant that is checked after two updates, and whose measurement is seconds an update."""

    def check() -> list[float]:
        update()
        update()
        return [float(leaf.detach().double().square().sum()) for leaf in list(leaves())[:8]]

    def run() -> float:
        begun = clock()
        for _ in range(calls):
            update()
        return (clock() - begun) / calls

    return Entrant(run, check)


def functrain(make: Callable[[], optim.Transform], shapes: Shapes, calls: int, jit: bool) -> Entrant:
    """Return the entrant of a functrain optimizer, whose old parameters and state are donated where it is compiled."""
    optimizer, gradients, params = make(), _tree(shapes, 1), _tree(shapes, 0)
    carry = params, optimizer.init(params)

    def step(carry: Any, gradients: Any) -> Any:
        return optim.step(optimizer, gradients, carry[1], carry[0])

    fast = ft.jit(step, donate=0) if jit else step

    def update() -> None:
        nonlocal carry
        carry = fast(carry, gradients)

    return _entrant(update, lambda: carry[0].values(), calls)


def pytorch(make: Callable[[Any], torch.optim.Optimizer], shapes: Shapes, calls: int) -> Entrant:
    """Return the entrant of a PyTorch optimizer, which updates its parameters in place."""
    params = [leaf.requires_grad_() for leaf in _drawn(shapes, 0)]
    for p, g in zip(params, _drawn(shapes, 1), strict=True):
        p.grad = g
    return _entrant(make(params).step, lambda: params, calls)
