"""The optimizers that evaluate."""

import attrs

from functrain.optim.chaining import alias
from functrain.optim.evaluating.diagonal import scale_by_sophia
from functrain.optim.evaluating.sharpness import gradients_uphill
from functrain.optim.optimizers.shared import decay_weights
from functrain.optim.primitives import scale_by_learning_rate
from functrain.optim.transform import Transform, check_transform
from functrain.records import reprs
from functrain.schedule import Hyper


def sam(transform: Transform, rho: Hyper = 0.05, adaptive: bool = False) -> Transform:
    """Return sharpness-aware minimization: another optimizer, with the gradients from uphill.

    See `gradients_uphill` for the maths and its source. Each update takes two gradients of the batch. A fit supplies
    what it needs.

    Args:
        transform: the optimizer, such as `optim.sgd(0.1, momentum=0.9)`.
        rho: at least 0, how far uphill.
        adaptive: whether a parameter moves in proportion to its size; then rho is about ten times as large.

    Raises:
        InvalidArgument: rho is out of range, or the transform is none.

    >>> from functrain import optim
    >>> sam(optim.sgd(lr=0.1))
    sam(sgd(lr=0.1), rho=0.05)
    """
    pieces = alias("sam", gradients_uphill(rho, adaptive), check_transform(transform))
    options = f", rho={reprs.short(rho)}{', adaptive=True' if adaptive else ''}"
    return attrs.evolve(pieces, label=lambda: f"sam({transform!r}{options})")


def sophia(
    lr: Hyper,
    b1: Hyper = 0.965,
    b2: Hyper = 0.99,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 1e-4,
    gamma: Hyper = 0.01,
    most: Hyper = 1.0,
    every: int = 10,
) -> Transform:
    """Return Sophia-H: a mean of the gradients over the diagonal of the Hessian, clipped.

    See `scale_by_sophia` for the maths and its source. Keeps two numbers for each parameter.

    Args:
        lr: the learning rate, at least 0: the most that an element moves, where `most` is 1.
        b1: in [0, 1), the decay of the mean of the gradients.
        b2: in [0, 1), the decay of the diagonal.
        eps: at least 0, the smallest divisor.
        weight_decay: at least 0, decoupled, multiplied by the learning rate.
        gamma: at least 0, a factor of the diagonal.
        most: at least 0, the largest element of an update before the rate.
        every: after how many updates the diagonal is estimated again, at least 1.

    Raises:
        InvalidArgument: a number is out of range.

    >>> sophia(lr=1e-3)
    sophia(lr=0.001, b1=0.965, b2=0.99, eps=1e-08, gamma=0.01, most=1.0, weight_decay=0.0001)
    """
    return alias(
        "sophia",
        scale_by_sophia(b1, b2, eps, gamma, most, every),
        decay_weights(weight_decay),
        scale_by_learning_rate(lr),
    )
