"""Descent by the gradient itself."""

from functrain.optim.arithmetic import is_zero
from functrain.optim.chaining import alias
from functrain.optim.optimizers.shared import decay_weights
from functrain.optim.primitives import (
    add_noise,
    average_iterates,
    ema,
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
        decay_weights(weight_decay),
        None if is_zero(momentum) else momentums,
        scale_by_learning_rate(lr),
    )


def momentum(lr: Hyper, momentum: Hyper = 0.9, debias: bool = True, weight_decay: Hyper = 0.0) -> Transform:
    """Return descent by a mean of the gradients: the lesson's momentum, dampened, with "debias".

    As in notebook 09 of fastai's course of 2019; so the learning rate is that of plain descent, whatever the momentum.
    Without `debias` it is PyTorch's momentum with as much dampening, but for the first update. See `ema` for the maths.
    Keeps one number for each parameter.

    Args:
        lr: the learning rate, at least 0.
        momentum: in [0, 1), the decay of the mean.
        debias: whether to correct that the mean begins at 0.
        weight_decay: the L2 penalty, at least 0.

    Raises:
        InvalidArgument: a number is out of range.

    >>> momentum(lr=0.1)
    momentum(lr=0.1, momentum=0.9)
    """
    return alias("momentum", decay_weights(weight_decay), ema(momentum, debias=debias), scale_by_learning_rate(lr))


def noisy_sgd(lr: Hyper, eta: Hyper = 0.01, gamma: Hyper = 0.55) -> Transform:
    """Return descent by gradients with normal noise, which becomes less, as optax.noisy_sgd.

    The noise is drawn from the key of the training step. See `add_noise` for the maths and its source.

    Args:
        lr: the learning rate, at least 0.
        eta: at least 0, the first variance of the noise.
        gamma: at least 0, how fast it falls.

    Raises:
        InvalidArgument: a number is out of range. In `update`, the context has no key.

    >>> noisy_sgd(lr=0.1)
    noisy_sgd(lr=0.1, eta=0.01, gamma=0.55)
    """
    return alias("noisy_sgd", add_noise(eta, gamma), scale_by_learning_rate(lr))


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
        decay_weights(weight_decay),
        scale_by_falling_rate(lr, lambd, alpha),
        average_iterates(start),
    )
