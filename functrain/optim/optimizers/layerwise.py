"""Optimizers that look at the norm of each array: LAMB, LARS and NovoGrad."""

from functrain.optim.arithmetic import is_zero
from functrain.optim.chaining import alias
from functrain.optim.optimizers.shared import decay_weights, of_some
from functrain.optim.primitives import (
    scale_by_adam,
    scale_by_learning_rate,
    scale_by_novograd,
    scale_by_trust_ratio,
    trace,
)
from functrain.optim.transform import Transform
from functrain.optim.wrappers.claiming import Where
from functrain.schedule import Hyper


def lamb(
    lr: Hyper = 1e-3,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-6,
    weight_decay: Hyper = 0.0,
    most: Hyper | None = None,
    adapted: Where | None = None,
) -> Transform:
    """Return LAMB: Adam, and weight decay, with updates of the norm of their parameter, equal to optax.lamb.

    See `scale_by_adam` and `scale_by_trust_ratio` for the maths. (You et al., 2020, https://arxiv.org/abs/1904.00962.)
    With `most=10` it is the lesson's (notebook 09 of fastai's course of 2019). Keeps two numbers for each parameter.

    Args:
        lr: the learning rate, at least 0.
        b1: in [0, 1), the decay of the mean of the gradients.
        b2: in [0, 1), the decay of the mean of their squares.
        eps: at least 0, keeps the divisor away from zero.
        weight_decay: at least 0, decoupled.
        most: the largest ratio of the norms; None for no limit.
        adapted: which parameters decay and have their norms seen, see `masked`; None for all. Mostly
            `no_biases_or_norms`.

    Raises:
        InvalidArgument: a number is out of range.

    >>> lamb(lr=0.01, weight_decay=0.1)
    lamb(lr=0.01, b1=0.9, b2=0.999, eps=1e-06, weight_decay=0.1)
    """
    return alias(
        "lamb",
        scale_by_adam(b1, b2, eps),
        decay_weights(weight_decay, adapted),
        of_some(adapted, scale_by_trust_ratio(most=most)),
        scale_by_learning_rate(lr),
    )


def lars(
    lr: Hyper,
    momentum: Hyper = 0.9,
    nesterov: bool = False,
    weight_decay: Hyper = 0.0,
    trust_coefficient: Hyper = 1e-3,
    eps: Hyper = 0.0,
    adapted: Where | None = None,
) -> Transform:
    """Return LARS: descent with momentum, by gradients of the norm of their parameter, equal to optax.lars.

    See `scale_by_trust_ratio` and `trace` for the maths; the learning rate comes before the momentum. (You et al.,
    2017, https://arxiv.org/abs/1708.03888.) Keeps one number for each parameter.

    Args:
        lr: the learning rate, at least 0.
        momentum: at least 0.
        nesterov: whether to look one step ahead; needs momentum.
        weight_decay: an L2 penalty, part of the gradient, at least 0.
        trust_coefficient: at least 0, of the ratio of the norms.
        eps: at least 0, added to the norm of the gradient; the hyperparameter "trust_eps".
        adapted: which parameters decay and have their norms seen, see `masked`; None for all. Mostly
            `no_biases_or_norms`.

    Raises:
        InvalidArgument: a number is out of range, or `nesterov` comes with a momentum of zero.

    >>> lars(lr=1.0, momentum=0.9)
    lars(lr=1.0, trust_coefficient=0.001, momentum=0.9)
    """
    momentums = trace(momentum, nesterov=nesterov)  # checks the arguments, even when it is void
    return alias(
        "lars",
        decay_weights(weight_decay, adapted),
        of_some(adapted, scale_by_trust_ratio(trust_coefficient, eps)),
        scale_by_learning_rate(lr),
        None if is_zero(momentum) else momentums,
    )


def novograd(
    lr: Hyper = 1e-3, momentum: Hyper = 0.9, b2: Hyper = 0.25, eps: Hyper = 1e-6, weight_decay: Hyper = 0.0
) -> Transform:
    """Return NovoGrad: momentum of gradients that are divided by the norm of their array, equal to optax.novograd.

    See `scale_by_novograd` and `trace` for the maths and its source. Keeps one number for each parameter.

    Args:
        lr: the learning rate, at least 0.
        momentum: at least 0, optax's b1.
        b2: in [0, 1), the decay of the mean of squared norms.
        eps: at least 0, keeps the divisor away from zero.
        weight_decay: at least 0, part of what the momentum sums.

    Raises:
        InvalidArgument: a number is out of range.

    >>> novograd(lr=0.01)
    novograd(lr=0.01, b2=0.25, eps=1e-06, momentum=0.9)
    """
    return alias(
        "novograd",
        scale_by_novograd(b2, eps),
        decay_weights(weight_decay),
        trace(momentum),
        scale_by_learning_rate(lr),
    )
