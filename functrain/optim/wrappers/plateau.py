"""A learning rate that falls where the loss has stopped to fall."""

import math
from typing import Any

import torch
from torch import Tensor

from functrain import arguments, tree
from functrain.errors import InvalidArgument
from functrain.optim.arithmetic import times
from functrain.optim.context import Context
from functrain.optim.shapes import device
from functrain.optim.transform import Transform
from functrain.schedule.hyper import is_number


@tree.node
class Plateau:
    """The state of `reduce_on_plateau`; all of it scalars.

    Attributes:
        scale: by what updates are multiplied, float64.
        best: the best mean loss so far, float64.
        bad: means in a row that were no better, int64.
        cooldown: means that are still to be passed over, int64.
        count: batches in the mean under way, int64.
        total: the sum of their losses, weighted, float64.
        weight: the sum of their weights, float64.
    """

    scale: Tensor
    best: Tensor
    bad: Tensor
    cooldown: Tensor
    count: Tensor
    total: Tensor
    weight: Tensor


def reduce_on_plateau(
    factor: float = 0.1,
    patience: int = 10,
    every: int = 1,
    rtol: float = 1e-4,
    atol: float = 0.0,
    cooldown: int = 0,
    min_scale: float = 0.0,
) -> Transform:
    """Return the transform that scales updates by less and less, each time when the loss has not fallen for long.

    It looks at the mean loss of `every` batches, weighted by their examples. A mean is better if it is below
    (1 - rtol) * best - atol. After more than `patience` means in a row that are not, the scale is multiplied by
    `factor`, as in torch's ReduceLROnPlateau by epochs (optax's falls one mean earlier). A mean that is NaN is not
    better. Put it after the optimizer in a chain, with `accumulate` around both: it needs the loss, which a
    training step supplies.

    Args:
        factor: in (0, 1).
        patience: how many means in a row may be no better, at least 0.
        every: how many batches make a mean, at least 1; the batches of an epoch, say.
        rtol: at least 0, a relative tolerance.
        atol: at least 0, an absolute one.
        cooldown: how many means after a fall of the scale are passed over, at least 0.
        min_scale: at least 0, below which the scale does not fall.

    Raises:
        InvalidArgument: an argument is out of range. In `update`, the context has no loss.

    >>> from functrain import optim
    >>> halved = reduce_on_plateau(factor=0.5, patience=0)
    >>> state = halved.init({"w": torch.ones(1)})
    >>> for loss in (1.0, 1.0):
    ...     updates, state = halved.update({"w": torch.ones(1)}, state, {"w": torch.ones(1)}, optim.Context(loss=loss))
    >>> updates
    {'w': tensor([0.5000])}
    """
    if not is_number(factor) or not 0 < factor < 1:
        raise InvalidArgument(f"factor must be a number in (0, 1), got {factor!r}")
    for name, count, least in (("patience", patience, 0), ("every", every, 1), ("cooldown", cooldown, 0)):
        arguments.whole(name, count, least)
    for name, number in (("rtol", rtol), ("atol", atol), ("min_scale", min_scale)):
        if not is_number(number) or not 0 <= number < math.inf:
            raise InvalidArgument(f"{name} must be a number of at least 0, got {number!r}")

    def init(params: Any) -> Plateau:
        def scalar(value: float, dtype: torch.dtype) -> Tensor:
            return torch.full((), value, dtype=dtype, device=device(params))

        real, whole = torch.float64, torch.int64
        return Plateau(
            scale=scalar(1, real),
            best=scalar(math.inf, real),
            bad=scalar(0, whole),
            cooldown=scalar(0, whole),
            count=scalar(0, whole),
            total=scalar(0, real),
            weight=scalar(0, real),
        )

    def update(updates: Any, state: Plateau, params: Any, context: Context) -> tuple[Any, Plateau]:
        loss: Any = context.loss
        state = tree.evolve(
            state,
            count=state.count + 1,
            total=state.total + loss * context.weight,
            weight=state.weight + context.weight,
        )
        full = (state.count >= every) & (state.weight > 0)
        state = tree.map(lambda new, old: torch.where(full, new, old), judged(state), state)
        return tree.map(lambda u: times(u, state.scale), updates), state

    def judged(state: Plateau) -> Plateau:
        mean = state.total / state.weight
        better = mean < (1 - rtol) * state.best - atol
        cooling = state.cooldown > 0
        bad = torch.where(better | cooling, torch.zeros_like(state.bad), state.bad + 1)
        falls = bad > patience
        zero = torch.zeros_like(state.total)
        return Plateau(
            torch.where(falls, (state.scale * factor).clamp(min=min_scale), state.scale),
            torch.where(better, mean, state.best),
            torch.where(falls, torch.zeros_like(bad), bad),
            torch.where(falls, torch.full_like(bad, cooldown), (state.cooldown - 1).clamp(min=0)),
            torch.zeros_like(bad),
            zero,
            zero.clone(),
        )

    options = {"factor": factor, "patience": patience, "every": every, "cooldown": cooldown}
    label = f"reduce_on_plateau({', '.join(f'{name}={value!r}' for name, value in options.items())})"
    return Transform(init, update, needs=("loss",), label=lambda: label)
