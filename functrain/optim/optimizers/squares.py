"""Optimizers that divide the gradient by the size that it usually has."""

from functrain.optim.arithmetic import is_zero
from functrain.optim.chaining import alias
from functrain.optim.optimizers.shared import decay_weights
from functrain.optim.primitives import (
    clip_by_block_rms,
    ema,
    negate,
    scale_by_adadelta,
    scale_by_factored_rms,
    scale_by_inverse_time,
    scale_by_learning_rate,
    scale_by_param_rms,
    scale_by_relative_step,
    scale_by_rms,
    scale_by_rss,
    scale_by_sm3,
    scale_by_stddev,
    trace,
)
from functrain.optim.transform import Transform
from functrain.schedule import Hyper, Number


def rmsprop(
    lr: Hyper = 1e-2,
    decay: Hyper = 0.99,
    eps: Hyper = 1e-8,
    centered: bool = False,
    momentum: Hyper = 0.0,
    weight_decay: Hyper = 0.0,
    maximize: bool = False,
    eps_in_root: bool = False,
) -> Transform:
    """Return RMSProp, equal to torch.optim.RMSprop. See `scale_by_rms` and `scale_by_stddev` for the maths and sources.

    Keeps one number for each parameter, one more if centered, and one more with momentum.

    Args:
        lr: the learning rate, at least 0.
        decay: in [0, 1), the decay of the mean square, PyTorch's alpha.
        eps: at least 0, keeps the divisor away from zero.
        centered: whether to divide by the standard deviation.
        momentum: at least 0, of the divided gradients.
        weight_decay: an L2 penalty, part of the gradient, at least 0.
        maximize: whether to climb instead.
        eps_in_root: whether eps is added before the root is taken, as in optax.

    Raises:
        InvalidArgument: a number is out of range.

    >>> rmsprop(lr=0.01, momentum=0.9)
    rmsprop(lr=0.01, decay=0.99, eps=1e-08, momentum=0.9)
    """
    momentums = trace(momentum)  # checks the argument, even when it is void
    return alias(
        "rmsprop",
        negate if maximize else None,
        decay_weights(weight_decay),
        scale_by_stddev(decay, eps, eps_in_root) if centered else scale_by_rms(decay, eps, eps_in_root),
        None if is_zero(momentum) else momentums,
        scale_by_learning_rate(lr),
    )


def adagrad(
    lr: Hyper = 1e-2,
    lr_decay: Hyper = 0.0,
    weight_decay: Hyper = 0.0,
    initial: Number = 0.0,
    eps: Hyper = 1e-10,
    maximize: bool = False,
    eps_in_root: bool = False,
) -> Transform:
    """Return Adagrad, equal to torch.optim.Adagrad. See `scale_by_rss` for the maths and its source.

    Keeps one number for each parameter.

    Args:
        lr: the learning rate, at least 0.
        lr_decay: at least 0; in the t-th update the rate is lr / (1 + (t - 1) lr_decay).
        weight_decay: an L2 penalty, part of the gradient, at least 0.
        initial: at least 0, where the sum of squares begins.
        eps: at least 0, keeps the divisor away from zero.
        maximize: whether to climb instead.
        eps_in_root: whether eps is added before the root is taken, as in optax.

    Raises:
        InvalidArgument: a number is out of range.

    >>> adagrad(lr=0.1)
    adagrad(lr=0.1, eps=1e-10)
    """
    return alias(
        "adagrad",
        negate if maximize else None,
        decay_weights(weight_decay),
        scale_by_rss(initial, eps, eps_in_root),
        None if is_zero(lr_decay) else scale_by_inverse_time(lr_decay),
        scale_by_learning_rate(lr),
    )


def adadelta(
    lr: Hyper = 1.0, rho: Hyper = 0.9, eps: Hyper = 1e-6, weight_decay: Hyper = 0.0, maximize: bool = False
) -> Transform:
    """Return Adadelta, equal to torch.optim.Adadelta. See `scale_by_adadelta` for the maths and its source.

    Keeps two numbers for each parameter.

    Args:
        lr: the learning rate, at least 0.
        rho: in [0, 1), the decay of the mean squares of gradients and of updates.
        eps: from which the updates grow, at least 0.
        weight_decay: an L2 penalty, part of the gradient, at least 0.
        maximize: whether to climb instead.

    Raises:
        InvalidArgument: a number is out of range.

    >>> adadelta()
    adadelta(lr=1.0, rho=0.9, eps=1e-06)
    """
    return alias(
        "adadelta",
        negate if maximize else None,
        decay_weights(weight_decay),
        scale_by_adadelta(rho, eps),
        scale_by_learning_rate(lr),
    )


def adafactor(
    lr: Hyper = 1e-2,
    decay_power: Hyper = -0.8,
    eps: float | None = None,
    least: Hyper = 1e-3,
    threshold: Hyper = 1.0,
    weight_decay: Hyper = 0.0,
    maximize: bool = False,
) -> Transform:
    """Return Adafactor, equal to torch.optim.Adafactor.

    See `scale_by_factored_rms`, `clip_by_block_rms`, `scale_by_param_rms` and `scale_by_relative_step` for the maths
    and its sources. Of a matrix it keeps a number for each row and each column.

    Args:
        lr: the largest learning rate, relative to the parameters' size, at least 0.
        decay_power: at most 0, the power of t in the weight of new squares.
        eps: keeps the divisor away from zero; None for the resolution of the dtype in which it is computed.
        least: at least 0, the least size of a parameter that counts.
        threshold: at least 0, the RMS of updates that are not shortened.
        weight_decay: at least 0, decoupled, multiplied by `lr`.
        maximize: whether to climb instead.

    Raises:
        InvalidArgument: a number is out of range.

    >>> adafactor(lr=0.05)
    adafactor(lr=0.05, decay_power=-0.8, threshold=1.0, least=0.001)
    """
    return alias(
        "adafactor",
        negate if maximize else None,
        scale_by_factored_rms(decay_power, eps),
        clip_by_block_rms(threshold),
        scale_by_param_rms(least),
        scale_by_relative_step(lr, weight_decay),
    )


def sm3(lr: Hyper, momentum: Hyper = 0.9, eps: Hyper = 1e-8) -> Transform:
    """Return SM3: Adagrad that keeps of a matrix a number for each row and each column, equal to optax.sm3.

    See `scale_by_sm3` and `ema` for the maths and its source. Keeps one number for each parameter with momentum, and
    those of rows and columns.

    Args:
        lr: the learning rate, at least 0.
        momentum: in [0, 1), the decay of the mean of the divided gradients.
        eps: at least 0, keeps the divisor away from zero.

    Raises:
        InvalidArgument: a number is out of range.
        DtypeMismatch: in `init`, a parameter is complex.

    >>> sm3(lr=0.1)
    sm3(lr=0.1, eps=1e-08, momentum=0.9)
    """
    mean = ema(momentum)  # checks the argument, even when it is void
    return alias("sm3", scale_by_sm3(eps), None if is_zero(momentum) else mean, scale_by_learning_rate(lr))
