"""Adam and its relatives: steps along a mean of the gradients, by a scale for each element."""

from functrain.optim.chaining import alias
from functrain.optim.optimizers.shared import decay
from functrain.optim.primitives import scale_by_adam, scale_by_learning_rate, scale_by_lion
from functrain.optim.transform import Transform
from functrain.schedule import Hyper


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
    return alias("adam", decay(weight_decay), scale_by_adam(b1, b2, eps), scale_by_learning_rate(lr))


def adamw(
    lr: Hyper = 1e-3, b1: Hyper = 0.9, b2: Hyper = 0.999, eps: Hyper = 1e-8, weight_decay: Hyper = 1e-2
) -> Transform:
    """Return Adam with decoupled weight decay, equal to torch.optim.AdamW.

    p changes by -lr * (Adam's update + weight_decay * p) (Loshchilov and Hutter, 2019,
    https://arxiv.org/abs/1711.05101). To leave biases and norms undecayed, see `partition`.

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
    return alias("adamw", scale_by_adam(b1, b2, eps), decay(weight_decay), scale_by_learning_rate(lr))


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
