"""The named optimizers: each is one chain of primitives and holds no algorithm of its own."""

import torch

from functrain import tree
from functrain.optim.primitives import (
    add_decayed_weights,
    is_zero,
    scale_by_adam,
    scale_by_learning_rate,
    trace,
)
from functrain.optim.transform import Transform, chain, stateless
from functrain.schedule import Hyper


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
    return chain(
        *_negated(maximize),
        *_decay(weight_decay),
        *_momentum(momentum, dampening, nesterov),
        scale_by_learning_rate(lr),
    )


def adam(
    lr: Hyper = 1e-3, b1: Hyper = 0.9, b2: Hyper = 0.999, eps: Hyper = 1e-8, weight_decay: Hyper = 0.0
) -> Transform:
    """Return Adam, equal to torch.optim.Adam. See `scale_by_adam` for the maths and its source.

    Args:
        lr: the learning rate, at least 0.
        b1: in [0, 1), the decay of the mean of the gradients.
        b2: in [0, 1), the decay of the mean of their squares.
        eps: at least 0, keeps the divisor away from zero.
        weight_decay: an L2 penalty, part of the gradient; `adamw` decouples it.

    Raises:
        InvalidArgument: a number is out of range.

    >>> sorted(adam(lr=0.01).hypers)
    ['b1', 'b2', 'eps', 'lr']
    """
    return chain(*_decay(weight_decay), scale_by_adam(b1, b2, eps), scale_by_learning_rate(lr))


def adamw(
    lr: Hyper = 1e-3, b1: Hyper = 0.9, b2: Hyper = 0.999, eps: Hyper = 1e-8, weight_decay: Hyper = 1e-2
) -> Transform:
    """Return Adam with decoupled weight decay, equal to torch.optim.AdamW.

    p changes by -lr * (Adam's update + weight_decay * p) (Loshchilov and Hutter, 2019,
    https://arxiv.org/abs/1711.05101). To leave biases and norms undecayed, see `by_path`.

    Args:
        lr: the learning rate, at least 0.
        b1: in [0, 1), the decay of the mean of the gradients.
        b2: in [0, 1), the decay of the mean of their squares.
        eps: at least 0, keeps the divisor away from zero.
        weight_decay: at least 0, multiplied by the learning rate.

    Raises:
        InvalidArgument: a number is out of range.

    >>> sorted(adamw(lr=0.01).hypers)
    ['b1', 'b2', 'eps', 'lr', 'weight_decay']
    """
    return chain(scale_by_adam(b1, b2, eps), *_decay(weight_decay), scale_by_learning_rate(lr))


def _decay(weight_decay: Hyper) -> list[Transform]:
    return [] if is_zero(weight_decay) else [add_decayed_weights(weight_decay)]


def _momentum(momentum: Hyper, dampening: Hyper, nesterov: bool) -> list[Transform]:
    piece = trace(momentum, dampening, nesterov)  # checks the arguments, even when it is void
    return [] if is_zero(momentum) else [piece]


def _negated(maximize: bool) -> list[Transform]:
    return [stateless(lambda updates, params, context: tree.map(torch.neg, updates))] if maximize else []
