"""Adam and its relatives: a mean of the gradients, divided by the size that they usually have."""

from functrain.optim.chaining import alias
from functrain.optim.optimizers.shared import decay_weights
from functrain.optim.primitives import (
    negate,
    scale_by_adam,
    scale_by_adamax,
    scale_by_amsgrad,
    scale_by_learning_rate,
    scale_by_nadam,
    scale_by_radam,
)
from functrain.optim.transform import Transform
from functrain.optim.wrappers.claiming import Where
from functrain.schedule import Hyper


def adam(
    lr: Hyper = 1e-3,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    amsgrad: bool = False,
    maximize: bool = False,
) -> Transform:
    """Return Adam, equal to torch.optim.Adam. See `scale_by_adam` for the maths and its source.

    Keeps two numbers for each parameter.

    Args:
        lr: the learning rate, at least 0.
        b1: in [0, 1), the decay of the mean of the gradients.
        b2: in [0, 1), the decay of the mean of their squares.
        eps: at least 0, keeps the divisor away from zero.
        weight_decay: an L2 penalty, part of the gradient, at least 0; `adamw` decouples it.
        amsgrad: whether to divide by the largest mean square so far, see `scale_by_amsgrad`.
        maximize: whether to climb instead.

    Raises:
        InvalidArgument: a number is out of range.

    >>> adam(lr=0.01)
    adam(lr=0.01, b1=0.9, b2=0.999, eps=1e-08)
    """
    return alias(
        "adam",
        negate if maximize else None,
        decay_weights(weight_decay),
        scale_by_amsgrad(b1, b2, eps) if amsgrad else scale_by_adam(b1, b2, eps),
        scale_by_learning_rate(lr),
    )


def adamw(
    lr: Hyper = 1e-3,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 1e-2,
    amsgrad: bool = False,
    maximize: bool = False,
    decayed: Where | None = None,
) -> Transform:
    """Return Adam with decoupled weight decay, equal to torch.optim.AdamW.

    p changes by -lr * (Adam's update + weight_decay * p) (Loshchilov and Hutter, 2019,
    https://arxiv.org/abs/1711.05101). Keeps two numbers for each parameter.

    Args:
        lr: the learning rate, at least 0.
        b1: in [0, 1), the decay of the mean of the gradients.
        b2: in [0, 1), the decay of the mean of their squares.
        eps: at least 0, keeps the divisor away from zero.
        weight_decay: at least 0, decoupled, multiplied by the learning rate.
        amsgrad: whether to divide by the largest mean square so far, see `scale_by_amsgrad`.
        maximize: whether to climb instead.
        decayed: which parameters decay, see `add_decayed_weights`; None for all. `no_biases_or_norms` is for most.

    Raises:
        InvalidArgument: a number is out of range.

    >>> adamw(lr=0.01)
    adamw(lr=0.01, b1=0.9, b2=0.999, eps=1e-08, weight_decay=0.01)
    """
    return alias(
        "adamw",
        negate if maximize else None,
        scale_by_amsgrad(b1, b2, eps) if amsgrad else scale_by_adam(b1, b2, eps),
        decay_weights(weight_decay, decayed),
        scale_by_learning_rate(lr),
    )


def amsgrad(
    lr: Hyper = 1e-3,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    maximize: bool = False,
) -> Transform:
    """Return AMSGrad: `adam` with `amsgrad=True`. See `scale_by_amsgrad` for the maths and its source.

    Keeps three numbers for each parameter.

    Args:
        lr: the learning rate, at least 0.
        b1: in [0, 1), the decay of the mean of the gradients.
        b2: in [0, 1), the decay of the mean of their squares.
        eps: at least 0, keeps the divisor away from zero.
        weight_decay: an L2 penalty, part of the gradient, at least 0.
        maximize: whether to climb instead.

    Raises:
        InvalidArgument: a number is out of range.

    >>> amsgrad(lr=0.01)
    amsgrad(lr=0.01, b1=0.9, b2=0.999, eps=1e-08)
    """
    return alias(
        "amsgrad",
        negate if maximize else None,
        decay_weights(weight_decay),
        scale_by_amsgrad(b1, b2, eps),
        scale_by_learning_rate(lr),
    )


def adamax(
    lr: Hyper = 2e-3,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    maximize: bool = False,
) -> Transform:
    """Return AdaMax, equal to torch.optim.Adamax. See `scale_by_adamax` for the maths and its source.

    Keeps two numbers for each parameter.

    Args:
        lr: the learning rate, at least 0.
        b1: in [0, 1), the decay of the mean of the gradients.
        b2: in [0, 1), the decay of their largest size.
        eps: at least 0, keeps the divisor away from zero.
        weight_decay: an L2 penalty, part of the gradient, at least 0.
        maximize: whether to climb instead.

    Raises:
        InvalidArgument: a number is out of range.

    >>> adamax(lr=0.01)
    adamax(lr=0.01, b1=0.9, b2=0.999, eps=1e-08)
    """
    return alias(
        "adamax",
        negate if maximize else None,
        decay_weights(weight_decay),
        scale_by_adamax(b1, b2, eps),
        scale_by_learning_rate(lr),
    )


def nadam(
    lr: Hyper = 2e-3,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    momentum_decay: Hyper = 0.004,
    maximize: bool = False,
) -> Transform:
    """Return Adam with Nesterov's momentum, equal to torch.optim.NAdam.

    See `scale_by_nadam` for the maths and its source.

    Keeps two numbers for each parameter.

    Args:
        lr: the learning rate, at least 0.
        b1: in [0, 1), the decay of the mean of the gradients.
        b2: in [0, 1), the decay of the mean of their squares.
        eps: at least 0, keeps the divisor away from zero.
        weight_decay: an L2 penalty, part of the gradient, at least 0; `nadamw` decouples it.
        momentum_decay: at least 0, how fast the momentum grows to b1.
        maximize: whether to climb instead.

    Raises:
        InvalidArgument: a number is out of range.

    >>> nadam(lr=0.01)
    nadam(lr=0.01, b1=0.9, b2=0.999, eps=1e-08, momentum_decay=0.004)
    """
    return alias(
        "nadam",
        negate if maximize else None,
        decay_weights(weight_decay),
        scale_by_nadam(b1, b2, eps, momentum_decay),
        scale_by_learning_rate(lr),
    )


def nadamw(
    lr: Hyper = 2e-3,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 1e-2,
    momentum_decay: Hyper = 0.004,
    maximize: bool = False,
    decayed: Where | None = None,
) -> Transform:
    """Return NAdam with decoupled weight decay, equal to torch.optim.NAdam(decoupled_weight_decay=True).

    See `scale_by_nadam` for the maths and its source. Keeps two numbers for each parameter.

    Args:
        lr: the learning rate, at least 0.
        b1: in [0, 1), the decay of the mean of the gradients.
        b2: in [0, 1), the decay of the mean of their squares.
        eps: at least 0, keeps the divisor away from zero.
        weight_decay: at least 0, decoupled, multiplied by the learning rate.
        momentum_decay: at least 0, how fast the momentum grows to b1.
        maximize: whether to climb instead.
        decayed: which parameters decay, see `add_decayed_weights`; None for all.

    Raises:
        InvalidArgument: a number is out of range.

    >>> nadamw(lr=0.01)
    nadamw(lr=0.01, b1=0.9, b2=0.999, eps=1e-08, momentum_decay=0.004, weight_decay=0.01)
    """
    return alias(
        "nadamw",
        negate if maximize else None,
        scale_by_nadam(b1, b2, eps, momentum_decay),
        decay_weights(weight_decay, decayed),
        scale_by_learning_rate(lr),
    )


def radam(
    lr: Hyper = 1e-3,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    decoupled: bool = False,
    maximize: bool = False,
) -> Transform:
    """Return rectified Adam, equal to torch.optim.RAdam. See `scale_by_radam` for the maths and its source.

    Keeps two numbers for each parameter.

    Args:
        lr: the learning rate, at least 0.
        b1: in [0, 1), the decay of the mean of the gradients.
        b2: in [0, 1), the decay of the mean of their squares.
        eps: at least 0, keeps the divisor away from zero.
        weight_decay: at least 0, an L2 penalty, part of the gradient, or
        decoupled: whether it is instead multiplied by the learning rate.
        maximize: whether to climb instead.

    Raises:
        InvalidArgument: a number is out of range.

    >>> radam(lr=0.01)
    radam(lr=0.01, b1=0.9, b2=0.999, eps=1e-08)
    """
    return alias(
        "radam",
        negate if maximize else None,
        None if decoupled else decay_weights(weight_decay),
        scale_by_radam(b1, b2, eps),
        decay_weights(weight_decay) if decoupled else None,
        scale_by_learning_rate(lr),
    )
