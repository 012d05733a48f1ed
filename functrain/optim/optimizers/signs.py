"""Optimizers that look at the signs of gradients alone."""

from functrain.optim.arithmetic import is_zero
from functrain.optim.chaining import alias
from functrain.optim.hypers import check_fixed
from functrain.optim.optimizers.shared import decay_weights
from functrain.optim.primitives import (
    ema,
    negate,
    scale_by_learning_rate,
    scale_by_lion,
    scale_by_rprop,
    scale_by_sign,
)
from functrain.optim.transform import Transform
from functrain.optim.wrappers.claiming import Where
from functrain.schedule import Hyper, Number


def lion(
    lr: Hyper = 1e-4,
    b1: Hyper = 0.9,
    b2: Hyper = 0.99,
    weight_decay: Hyper = 0.0,
    decayed: Where | None = None,
) -> Transform:
    """Return Lion: steps by the sign of a mean, all of one size. See `scale_by_lion` for the maths and its source.

    Args:
        lr: the learning rate, at least 0; a third to a tenth of Adam's.
        b1: in [0, 1), the weight of the mean beside the gradient.
        b2: in [0, 1), the decay of the mean.
        weight_decay: at least 0, decoupled, multiplied by the learning rate.
        decayed: which parameters decay, see `add_decayed_weights`; None for all.

    Raises:
        InvalidArgument: a number is out of range.

    >>> lion(lr=1e-4, weight_decay=0.1)
    lion(lr=0.0001, b1=0.9, b2=0.99, weight_decay=0.1)
    """
    return alias("lion", scale_by_lion(b1, b2), decay_weights(weight_decay, decayed), scale_by_learning_rate(lr))


def signum(lr: Hyper = 1e-3, momentum: Hyper = 0.9, weight_decay: Hyper = 0.0) -> Transform:
    """Return Signum: steps by the sign of a mean of the gradients, equal to optax.signum; without momentum signSGD.

    See `scale_by_sign` for the source (where it is the update of `lion` with b1 = b2). Keeps one number for each
    parameter, none without momentum.

    Args:
        lr: the learning rate, at least 0, which is the size of each step.
        momentum: in [0, 1), the decay of the mean.
        weight_decay: at least 0, decoupled, multiplied by the learning rate.

    Raises:
        InvalidArgument: a number is out of range.

    >>> signum(lr=0.01)
    signum(lr=0.01, momentum=0.9)
    """
    mean = ema(momentum)  # checks the argument, even when it is void
    return alias(
        "signum",
        None if is_zero(momentum) else mean,
        scale_by_sign(),
        decay_weights(weight_decay),
        scale_by_learning_rate(lr),
    )


def rprop(
    lr: Number = 1e-2,
    shrink: Hyper = 0.5,
    grow: Hyper = 1.2,
    least: Hyper = 1e-6,
    most: Hyper = 50.0,
    maximize: bool = False,
) -> Transform:
    """Return resilient propagation, equal to torch.optim.Rprop. See `scale_by_rprop` for the maths and its source.

    For gradients of all examples; keeps two numbers for each parameter.

    Args:
        lr: the first step size of each element, at least 0; no schedule.
        shrink: in [0, 1), the factor of the step size where the sign has turned.
        grow: at least 1, the factor where it is the same.
        least: the smallest step size.
        most: the largest step size.
        maximize: whether to climb instead.

    Raises:
        InvalidArgument: a number is out of range.

    >>> rprop(lr=0.1)
    rprop(shrink=0.5, least=1e-06, most=50.0, grow=1.2)
    """
    pieces = scale_by_rprop(check_fixed(lr=lr)["lr"], shrink, grow, least, most), negate
    return alias("rprop", negate if maximize else None, *pieces)
