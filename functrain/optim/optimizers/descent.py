"""Descent by the gradient itself."""

from functrain.optim.arithmetic import is_zero
from functrain.optim.chaining import alias
from functrain.optim.optimizers.shared import decay
from functrain.optim.primitives import (
    average_iterates,
    negate,
    scale_by_falling_rate,
    scale_by_learning_rate,
    trace,
)
from functrain.optim.transform import Transform
from functrain.schedule import Hyper, Number


def sgd(
    lr: Hyper,
    momentum: Hyper = 0.0,
    dampening: Hyper = 0.0,
    nesterov: bool = False,
    weight_decay: Hyper = 0.0,
    maximize: bool = False,
) -> Transform:
    """Return stochastic gradient descent, equal to torch.optim.SGD.

    A number 0 leaves its piece out of the chain, and its name out of the hyperparameters. See `add_decayed_weights` and
    `trace` for the maths and its sources.

    Args:
        lr: the learning rate, at least 0.
        momentum: at least 0.
        dampening: how much less than the whole gradient enters the momentum.
        nesterov: whether to look one step ahead; needs momentum and no dampening.
        weight_decay: the L2 penalty, at least 0.
        maximize: whether to climb instead.

    Raises:
        InvalidArgument: a number is out of range, or `nesterov` comes with a momentum of zero or with dampening.

    >>> sorted(sgd(lr=0.1, momentum=0.9, weight_decay=1e-4).hypers)
    ['lr', 'momentum', 'weight_decay']
    """
    momentums = trace(momentum, dampening, nesterov)  # checks the arguments, even when it is void
    return alias(
        "sgd",
        negate if maximize else None,
        decay(weight_decay),
        None if is_zero(momentum) else momentums,
        scale_by_learning_rate(lr),
    )


def asgd(
    lr: Hyper = 1e-2,
    lambd: Hyper = 1e-4,
    alpha: Hyper = 0.75,
    start: Number = 1e6,
    weight_decay: Hyper = 0.0,
    maximize: bool = False,
) -> Transform:
    """Return averaged stochastic gradient descent, equal to torch.optim.ASGD.

    The mean of the parameters is in the state of its last piece, `opt_state[-1]["average"]`. See
    `scale_by_falling_rate` and `average_iterates` for the maths and its sources. Keeps one number for each parameter.

    Args:
        lr: the first learning rate, at least 0.
        lambd: at least 0, by which the weights decay and the rate falls.
        alpha: at least 0, the power by which the rate falls.
        start: the updates before the mean begins.
        weight_decay: an L2 penalty, part of the gradient, at least 0.
        maximize: whether to climb instead.

    Raises:
        InvalidArgument: a number is out of range.

    >>> asgd(lr=0.1)
    asgd(lr=0.1, lambd=0.0001, alpha=0.75)
    """
    return alias(
        "asgd",
        negate if maximize else None,
        decay(weight_decay),
        scale_by_falling_rate(lr, lambd, alpha),
        average_iterates(start),
    )
