"""Optimizers that look at how gradients change: Adan and MARS."""

from typing import Any

import attrs

from functrain.optim.chaining import alias
from functrain.optim.optimizers.moments import adamw
from functrain.optim.optimizers.shared import decay_weights
from functrain.optim.primitives import (
    clip_by_block_norm,
    reduce_variance,
    scale_by_adam,
    scale_by_adan,
    scale_by_learning_rate,
)
from functrain.optim.transform import Transform
from functrain.optim.wrappers import partition
from functrain.optim.wrappers.claiming import Where
from functrain.schedule import Hyper


def adan(
    lr: Hyper = 1e-3,
    b1: Hyper = 0.98,
    b2: Hyper = 0.92,
    b3: Hyper = 0.99,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    decayed: Where | None = None,
) -> Transform:
    """Return Adan: Nesterov's momentum by differences of gradients, equal to the authors' with `no_prox`.

    See `scale_by_adan` for the maths and its source. Keeps four numbers for each parameter.

    Args:
        lr: the learning rate, at least 0.
        b1: in [0, 1), the decay of the mean of gradients.
        b2: in [0, 1), the decay of the mean of their differences, and its weight.
        b3: in [0, 1), the decay of the mean of squares.
        eps: at least 0, keeps the divisor away from zero.
        weight_decay: at least 0, decoupled, multiplied by the learning rate.
        decayed: which parameters decay, see `add_decayed_weights`; None for all.

    Raises:
        InvalidArgument: a number is out of range.

    >>> adan(lr=0.01)
    adan(lr=0.01, b1=0.98, b2=0.92, b3=0.99, eps=1e-08)
    """
    return alias(
        "adan",
        scale_by_adan(b1, b2, b3, eps),
        decay_weights(weight_decay, decayed),
        scale_by_learning_rate(lr),
    )


def mars(
    lr: Hyper = 3e-3,
    b1: Hyper = 0.95,
    b2: Hyper = 0.99,
    eps: Hyper = 1e-8,
    gamma: Hyper = 0.025,
    weight_decay: Hyper = 0.0,
    matrices: Where | None = None,
    others: Transform | None = None,
) -> Transform:
    """Return MARS for matrices, AdamW of gradients whose variance is reduced, with plain AdamW for everything else.

    See `reduce_variance`, `clip_by_block_norm` and `scale_by_adam` for the maths and its source; equal to the authors'
    MARS-AdamW in its approximation. Keeps three numbers for each element of a matrix.

    Args:
        lr: the learning rate, at least 0; the hyperparameter "mars.lr".
        b1: in [0, 1), the decay of the mean of the gradients.
        b2: in [0, 1), the decay of the mean of their squares.
        eps: at least 0, keeps the divisor away from zero.
        gamma: at least 0, how much of the change of the gradient is added.
        weight_decay: at least 0, decoupled, multiplied by the learning rate.
        matrices: which parameters are treated so, see `partition`; by default all of two axes or more.
        others: the optimizer of the rest, by default `adamw(lr, b1=0.9, b2=0.95, weight_decay=0.1)`.

    Raises:
        InvalidArgument: a number is out of range. In `init`, a pattern of `matrices` matches nothing.

    >>> list(mars(lr=0.01).hypers)[:3]
    ['mars.gamma', 'mars.momentum', 'mars.max_norm']
    """
    adam = scale_by_adam(b1, b2, eps)  # first, so that what is wrong with b1 is said of b1
    of_matrices = alias(
        "mars",
        reduce_variance(gamma, b1),
        clip_by_block_norm(1.0),
        adam,
        decay_weights(weight_decay),
        scale_by_learning_rate(lr),
    )
    others = adamw(lr, b1=0.9, b2=0.95, weight_decay=0.1) if others is None else others
    groups = partition(
        {"mars": of_matrices, "others": others},
        {"mars": _has_two_axes if matrices is None else matrices, "others": ...},
    )
    return attrs.evolve(groups, label="mars")


def _has_two_axes(path: str, leaf: Any) -> bool:
    return leaf.dim() >= 2
