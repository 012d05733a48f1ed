"""PyTorch's fused kernels of Adam and AdamW."""

import math
from typing import Any

import torch
from torch import Tensor

from functrain.optim.fused.operator import define, functions, parts
from functrain.optim.transform import identity

CHUNK = 1 << 18
"""Elements that are updated at once: enough that calls cost little, few enough that what was written is in a cache when
it is looked at."""


def adam_(
    params: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    gradients: list[Tensor],
    count: Tensor,
    lr: float | Tensor,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> None:
    """Update parameters and moments in place.

    Args:
        params: contiguous tensors of float32 or float64 on the CPU; the lists after it have such of the same shapes.
        means: of the gradients.
        squares: means of their squares.
        gradients: which are only read.
        count: the number of this update, a scalar.
        lr: the learning rate.
        b1: the decay of the means.
        b2: the decay of the squares.
        eps: keeps the divisor away from zero.
        weight_decay: an L2 penalty, or
        decoupled: whether it is instead multiplied by the learning rate.

    >>> p, m, v = torch.zeros(1), torch.zeros(1), torch.zeros(1)
    >>> adam_([p], [m], [v], [torch.ones(1)], torch.tensor(1), 0.5, 0.9, 0.999, 1e-8, 0.0, True)
    >>> p, m
    (tensor([-0.5000]), tensor([0.1000]))
    """
    kernel: Any = functions._fused_adamw_ if decoupled else functions._fused_adam_
    rate, counts = float(lr), [count] * len(params)
    for part in parts(params, CHUNK):
        written = params[part], gradients[part], means[part], squares[part]
        kernel(
            *written, [], counts[part], lr=rate, beta1=b1, beta2=b2, eps=eps, weight_decay=weight_decay,
            amsgrad=False, maximize=False,
        )  # fmt: skip
        for p, v in zip(written[0], written[3], strict=True):
            # As in the formula: where a square is not finite the parameter is NaN, instead of standing still unseen.
            if not _largest(v) < math.inf:
                p.add_(v, alpha=0)


def _largest(v: Tensor) -> float:
    """Return the largest of some squares, or something larger; NaN and infinity where one of them is that."""
    if v.numel() > _SHORT:
        return v.amax().item()
    flat = v.view(-1)  # quicker to call, slower to read
    return torch.dot(flat, flat).item()


_SHORT = 1 << 12


def adam(
    params: list[Tensor], means: list[Tensor], squares: list[Tensor], gradients: list[Tensor], *rest: Any
) -> list[Tensor]:
    """Return the parameters, the means and the squares after an update, see `adam_`, in one list.

    >>> zero = [torch.zeros(1)]
    >>> adam(zero, zero, zero, [torch.ones(1)], torch.tensor(1), 0.5, 0.9, 0.999, 1e-8, 0.0, True)[0]
    tensor([-0.5000])
    """
    columns: tuple[list[Tensor], ...] = ([], [], [])
    for part in parts(params, CHUNK):
        copies = [[t.clone() for t in tensors[part]] for tensors in (params, means, squares)]
        adam_(*copies, gradients[part], *rest)  # pyright: ignore
        for column, made in zip(columns, copies, strict=True):
            column += made
    return [t for column in columns for t in column]


def _parts_of_adam(
    params: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    gradients: list[Tensor],
    count: Tensor,
    lr: float | Tensor,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> list[Tensor]:
    # Here, as the pieces may be chains themselves.
    from functrain.optim.primitives.decaying import add_decayed_weights
    from functrain.optim.primitives.moments import scale_by_adam
    from functrain.optim.primitives.scaling import scale_by_learning_rate
    from functrain.optim.stepping import apply_updates

    decay = add_decayed_weights(weight_decay) if weight_decay else identity
    state: Any = {"mean": means, "square": squares, "count": count - 1}
    updates, _ = (identity if decoupled else decay).update(gradients, (), params)
    updates, state = scale_by_adam(b1, b2, eps).update(updates, state, params)
    updates, _ = (decay if decoupled else identity).update(updates, (), params)
    updates, _ = scale_by_learning_rate(lr).update(updates, (), params)
    return [*apply_updates(params, updates), *state["mean"], *state["square"]]


ADAM = define(
    "adam(Tensor[] params, Tensor[] means, Tensor[] squares, Tensor[] gradients, Tensor count, Tensor lr, float b1, "
    "float b2, float eps, float weight_decay, bool decoupled) -> Tensor[]",
    adam,
    adam_,
    _parts_of_adam,
    3,
)
