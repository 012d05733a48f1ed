"""Twenty iterations of L-BFGS with a line search, on a logistic regression of 2000 rows with 64 features.

functrain's are one compiled call. The check is the loss after them.
"""

from functools import partial
from typing import Any

import torch

import functrain as ft
from benchmarks.entrant import Entrant, Target
from functrain import optim

UNIT = (1e3, "ms")
TOLERANCE = 1e-2
ITERATIONS = 20


def _rows() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2000, 64, generator=generator, dtype=torch.float64)
    labels = (inputs @ torch.randn(64, generator=generator, dtype=torch.float64) > 0).double()
    return inputs, labels


def _loss(weights: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    losses = torch.nn.functional.binary_cross_entropy_with_logits(inputs @ weights, labels)
    return losses + 1e-2 * weights.square().sum()


def _functrain(jit: bool) -> Entrant:
    inputs, labels = _rows()
    optimizer = optim.lbfgs(1.0)

    def step(carry: Any, _: Any, inputs: Any, labels: Any) -> Any:
        evaluate = ft.value_and_grad(lambda params: _loss(params["w"], inputs, labels))
        loss, grads = evaluate(carry[0])
        context = optim.Context(loss=loss, evaluate=evaluate)
        return optim.step(optimizer, grads, carry[1], carry[0], context), loss

    def minimized(inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        params = {"w": torch.zeros(64, dtype=torch.float64)}
        run = ft.scan if jit else ft.fold
        carry, _ = run(
            lambda carry, x: step(carry, x, inputs, labels), (params, optimizer.init(params)), torch.zeros(ITERATIONS)
        )
        return _loss(carry[0]["w"], inputs, labels)

    f = ft.jit(minimized) if jit else minimized
    return Entrant(lambda: f(inputs, labels) is None or None, lambda: float(f(inputs, labels)))


def _pytorch() -> Entrant:
    inputs, labels = _rows()

    def minimized() -> float:
        weights = torch.zeros(64, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([weights], lr=1.0, max_iter=ITERATIONS, line_search_fn="strong_wolfe")

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = _loss(weights, inputs, labels)
            loss.backward()
            return loss

        optimizer.step(closure)
        return float(_loss(weights, inputs, labels).detach())

    return Entrant(lambda: minimized() is None or None, minimized)


ENTRANTS = {
    "functrain, one call": partial(_functrain, True),
    "functrain, eager": partial(_functrain, False),
    "PyTorch": _pytorch,
}

TARGETS = [Target("functrain, one call", "functrain, eager", 1.0)]
