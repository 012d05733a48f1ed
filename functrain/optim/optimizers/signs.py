"""Optimizers that look at the signs of gradients alone."""

from functrain.optim.chaining import alias
from functrain.optim.hypers import check_fixed
from functrain.optim.optimizers.shared import decay
from functrain.optim.primitives import negate, scale_by_learning_rate, scale_by_lion, scale_by_rprop
from functrain.optim.transform import Transform
from functrain.schedule import Hyper, Number


def lion(lr: Hyper = 1e-4, b1: Hyper = 0.9, b2: Hyper = 0.99, weight_decay: Hyper = 0.0) -> Transform:
    """Return Lion: steps by the sign of a mean, all of one size. See `scale_by_lion` for the maths and its source.

    Args:
        lr: the learning rate, at least 0; a third to a tenth of Adam's.
        b1: in [0, 1), the weight of the mean beside the gradient.
        b2: in [0, 1), the decay of the mean.
        weight_decay: at least 0, decoupled, multiplied by the learning rate.

    Raises:
        InvalidArgument: a number is out of range.

    >>> lion(lr=1e-4, weight_decay=0.1)
    lion(lr=0.0001, b1=0.9, b2=0.99, weight_decay=0.1)
    """
    return alias("lion", scale_by_lion(b1, b2), decay(weight_decay), scale_by_learning_rate(lr))


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
