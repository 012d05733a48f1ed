"""Optimizers that remember where they were: MADGRAD the first parameters, Ranger those of some updates before."""

import attrs

from functrain.optim.chaining import alias
from functrain.optim.optimizers.shared import decay_weights
from functrain.optim.primitives import centralize, scale_by_learning_rate, scale_by_madgrad, scale_by_radam
from functrain.optim.transform import Transform
from functrain.optim.wrappers import lookahead
from functrain.optim.wrappers.claiming import Where
from functrain.schedule import Hyper


def madgrad(lr: Hyper = 1e-2, momentum: Hyper = 0.9, eps: Hyper = 1e-6, weight_decay: Hyper = 0.0) -> Transform:
    """Return MADGRAD, equal to the authors' and optax.contrib.madgrad. See `scale_by_madgrad` for the maths.

    Keeps three numbers for each parameter, the first parameters among them.

    Args:
        lr: the learning rate, at least 0; of the size that suits SGD.
        momentum: in [0, 1), how much of each way is left.
        eps: at least 0, keeps the divisor away from zero.
        weight_decay: an L2 penalty, part of the gradient, at least 0.

    Raises:
        InvalidArgument: a number is out of range.

    >>> madgrad(lr=0.1)
    madgrad(lr=0.1, eps=1e-06, momentum=0.9)
    """
    return alias("madgrad", decay_weights(weight_decay), scale_by_madgrad(lr, momentum, eps))


def ranger(
    lr: Hyper = 1e-3,
    b1: Hyper = 0.95,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-5,
    weight_decay: Hyper = 0.0,
    k: int = 6,
    slow_lr: Hyper = 0.5,
    decayed: Where | None = None,
) -> Transform:
    """Return Ranger: rectified Adam of centralized gradients, looking ahead.

    See `centralize`, `scale_by_radam` and `lookahead` for the maths; equal to Wright's Ranger of 2020
    (https://github.com/lessw2020/Ranger-Deep-Learning-Optimizer). Keeps three numbers for each parameter.

    Args:
        lr: the learning rate, at least 0.
        b1: in [0, 1), the decay of the mean of the gradients.
        b2: in [0, 1), the decay of the mean of their squares.
        eps: at least 0, keeps the divisor away from zero.
        weight_decay: at least 0, decoupled, multiplied by the learning rate.
        k: after how many updates it goes back part of the way, at least 1.
        slow_lr: at least 0, how much of the way is kept.
        decayed: which parameters decay, see `add_decayed_weights`; None for all.

    Raises:
        InvalidArgument: a number is out of range.
        DtypeMismatch: in `init`, a parameter is complex.

    >>> ranger(lr=0.01)
    ranger(lr=0.01, b1=0.95, b2=0.999, eps=1e-05, slow_lr=0.5)
    """
    inside = alias(
        "radam",
        centralize(),
        scale_by_radam(b1, b2, eps),
        decay_weights(weight_decay, decayed),
        scale_by_learning_rate(lr),
    )
    return attrs.evolve(lookahead(k, slow_lr, inside), label="ranger")
