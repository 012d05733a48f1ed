"""The optimizers of whole matrices."""

from functrain.optim.arithmetic import is_zero
from functrain.optim.chaining import alias
from functrain.optim.optimizers.shared import decay_weights
from functrain.optim.preconditioning.axes import scale_by_shampoo
from functrain.optim.preconditioning.eigenbases import scale_by_soap
from functrain.optim.preconditioning.projecting import low_rank
from functrain.optim.primitives import scale_by_adam, scale_by_learning_rate, trace
from functrain.optim.transform import Transform
from functrain.schedule import Hyper, Number


def shampoo(
    lr: Hyper = 0.1,
    momentum: Hyper = 0.0,
    b2: Hyper | None = None,
    eps: Number = 1e-4,
    weight_decay: Hyper = 0.0,
    every: int = 1,
    max_size: int = 1024,
) -> Transform:
    """Return Shampoo: matrices preconditioned by their rows and columns.

    See `scale_by_shampoo` for the maths and its source. Keeps 2 n^2 + 2 m^2 numbers for a matrix (n, m).

    Args:
        lr: the learning rate, at least 0.
        momentum: at least 0, of what is preconditioned.
        b2: None for sums of all gradients, with which steps become shorter; or in [0, 1), the decay of means.
        eps: above 0, keeps the roots finite.
        weight_decay: an L2 penalty, part of the gradient, at least 0.
        every: after how many updates the roots are computed again, at least 1.
        max_size: the longest axis that has a matrix, at least 1.

    Raises:
        InvalidArgument: a number is out of range.

    >>> shampoo(lr=0.1, b2=0.99)
    shampoo(lr=0.1, b2=0.99)
    """
    return alias(
        "shampoo",
        decay_weights(weight_decay),
        scale_by_shampoo(b2, eps, every, max_size),
        None if is_zero(momentum) else trace(momentum),
        scale_by_learning_rate(lr),
    )


def soap(
    lr: Hyper = 3e-3,
    b1: Hyper = 0.95,
    b2: Hyper = 0.95,
    b3: Hyper | None = None,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.01,
    every: int = 10,
    max_size: int = 10000,
) -> Transform:
    """Return SOAP: Adam in the eigenbasis of Shampoo. See `scale_by_soap` for the maths and its source.

    Keeps 2 n m + 2 n^2 + 2 m^2 numbers for a matrix (n, m). Its first update is 0.

    Where a moment has equal eigenvalues, such as the zeros of a low rank, its basis is open and rounding chooses it, so
    that two runs that differ in the last bit soon differ in more: by 0.1 in five epochs of a small network whose
    parameters were moved by 1e-15.

    Args:
        lr: the learning rate, at least 0.
        b1: in [0, 1), the decay of the mean of the gradients.
        b2: in [0, 1), the decay of the mean of their squares.
        b3: in [0, 1), the decay of the moments of rows and columns; None for b2.
        eps: at least 0, keeps the divisor away from zero.
        weight_decay: at least 0, decoupled, multiplied by the learning rate.
        every: after how many updates the bases change, at least 1.
        max_size: the longest axis that has a basis, at least 1.

    Raises:
        InvalidArgument: a number is out of range.

    >>> soap(lr=3e-3)
    soap(lr=0.003, b1=0.95, b2=0.95, eps=1e-08, weight_decay=0.01)
    """
    return alias(
        "soap", scale_by_soap(b1, b2, b3, eps, every, max_size), decay_weights(weight_decay), scale_by_learning_rate(lr)
    )


def galore(
    lr: Hyper = 1e-2,
    rank: int = 128,
    every: int = 200,
    scale: Hyper = 0.25,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
) -> Transform:
    """Return GaLore: AdamW whose state has few rows or columns. See `low_rank` for the maths and its source.

    Keeps 2 rank m + rank n numbers for a matrix (n, m) with n <= m; twice the size of what is no matrix.

    Args:
        lr: the learning rate, at least 0.
        rank: how many directions of a matrix are kept, at least 1.
        every: after how many updates the directions are chosen again, at least 1.
        scale: at least 0, a factor of the matrices' updates.
        b1: in [0, 1), the decay of the mean of the gradients.
        b2: in [0, 1), the decay of the mean of their squares.
        eps: at least 0, keeps the divisor away from zero.
        weight_decay: at least 0, decoupled, multiplied by the learning rate.

    Raises:
        InvalidArgument: a number is out of range.

    >>> galore(lr=0.01)
    galore(lr=0.01, b1=0.9, b2=0.999, eps=1e-08, scale=0.25)
    """
    return alias(
        "galore",
        low_rank(scale_by_adam(b1, b2, eps), rank, every, scale),
        decay_weights(weight_decay),
        scale_by_learning_rate(lr),
    )
