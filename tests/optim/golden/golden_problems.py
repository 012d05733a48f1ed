"""Three problems on which optimizers are compared with references: functions of float64 tensors, without draws.

Each has parameters to begin from, and a loss of parameters and step. A matrix, vectors, a valley that bends, and
batches that change with the step are among them; scalars are not, which some references do not take.
"""

from collections.abc import Callable, Iterator

import attrs
import torch
from torch import Tensor

STEPS = 20
KEPT = (1, 2, 3, 5, 10, 20)
"""How many updates a course has, and after which of them its parameters are kept."""

Params = dict[str, Tensor]
Evaluate = Callable[[Params, int], tuple[Tensor, Params]]
"""(params, step) -> (loss, gradients) of the batch of this step."""

Course = Callable[[Params, Evaluate], Iterator[Params]]
"""What a reference is: (params, evaluate) -> the parameters after each update."""


@attrs.frozen
class Problem:
    """A loss and where to begin.

    Attributes:
        begin: the first parameters by name.
        loss: (params, step) -> the loss of the batch of this step, a scalar.
    """

    begin: Callable[[], Params]
    loss: Callable[[Params, int], Tensor]

    def evaluate(self, params: Params, step: int) -> tuple[Tensor, Params]:
        """Return the loss and its gradients."""
        leaves = {name: leaf.detach().clone().requires_grad_() for name, leaf in params.items()}
        loss = self.loss(leaves, step)
        return loss.detach(), dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def numbers(*rows) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def waves(*shape: int, phase: float) -> Tensor:
    """Numbers in [-1, 1] without an obvious order."""
    size = torch.Size(shape).numel()
    return (torch.arange(size, dtype=torch.float64) * 2.3 + phase).sin().reshape(shape)


def quadratic(params: Params, step: int) -> Tensor:
    mixing = numbers([1.0, 0.5, 0.0], [0.0, 2.0, -0.3], [0.2, 0.0, 0.4])
    away = mixing @ params["matrix"] - numbers([1.0, -1.0], [0.5, 2.0], [0.3, -0.7])
    return 0.5 * away.square().sum() + 0.5 * (numbers(3.0, 0.3) * (params["vector"] - 1).square()).sum()


def valley(params: Params, step: int) -> Tensor:
    """Rosenbrock's, a hundredth as high."""
    x, y = params["point"]
    return 0.01 * (1 - x).square() + (y - x * x).square()


def classifier(params: Params, step: int) -> Tensor:
    """The cross-entropy of four of twelve examples, by two layers."""
    inputs, labels = waves(12, 2, phase=0.4) * 2, torch.arange(12) % 3
    rows = (torch.arange(4) * 3 + step) % 12
    hidden = torch.tanh(inputs[rows] @ params["in.weight"].T + params["in.bias"])
    logits = hidden @ params["out.weight"].T + params["out.bias"]
    return -torch.log_softmax(logits, 1)[torch.arange(4), labels[rows]].mean()


PROBLEMS = {
    "quadratic": Problem(lambda: {"matrix": waves(3, 2, phase=1.0), "vector": numbers(0.2, -0.4)}, quadratic),
    "valley": Problem(lambda: {"point": numbers(-1.2, 1.0)}, valley),
    "classifier": Problem(
        lambda: {
            "in.weight": waves(4, 2, phase=0.1),
            "in.bias": waves(4, phase=0.7) * 0.1,
            "out.weight": waves(3, 4, phase=0.9) * 0.7,
            "out.bias": waves(3, phase=0.2) * 0.1,
        },
        classifier,
    ),
}
