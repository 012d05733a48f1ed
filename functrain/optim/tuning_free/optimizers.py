"""The optimizers without a rate to tune."""

from functrain.optim.chaining import alias
from functrain.optim.optimizers.shared import decay_weights
from functrain.optim.primitives import negate, scale_by_learning_rate, scale_by_rms_without_bias
from functrain.optim.transform import Transform
from functrain.optim.tuning_free.distance import scale_by_dog, scale_by_dowg, scale_by_prodigy
from functrain.optim.tuning_free.interpolating import schedule_free
from functrain.optim.tuning_free.polyak import scale_by_polyak
from functrain.schedule import Hyper, Number


def dog(lr: Hyper = 1.0, initial: Hyper = 1e-6, eps: Hyper = 1e-8, weight_decay: Hyper = 0.0) -> Transform:
    """Return DoG, descent by the distance over the gradients. See `scale_by_dog` for the maths and its source.

    Keeps one number for each parameter. Evaluate a mean of the parameters (`callbacks.ema`).

    Args:
        lr: a factor, at least 0, mostly 1.
        initial: above 0, the first distance beside the size of the parameters.
        eps: at least 0, keeps the divisor away from zero.
        weight_decay: an L2 penalty, part of the gradient, at least 0.

    Raises:
        InvalidArgument: a number is out of range.

    >>> dog()
    dog(lr=1.0, initial=1e-06, eps=1e-08)
    """
    return alias("dog", decay_weights(weight_decay), scale_by_dog(initial, eps), scale_by_learning_rate(lr))


def dowg(lr: Hyper = 1.0, initial: Hyper = 1e-4, eps: Hyper = 1e-4, weight_decay: Hyper = 0.0) -> Transform:
    """Return DoWG, descent by the distance over weighted gradients. See `scale_by_dowg` for the maths and its source.

    Keeps one number for each parameter.

    Args:
        lr: a factor, at least 0, mostly 1.
        initial: above 0, the square of the first distance.
        eps: at least 0, keeps the divisor away from zero.
        weight_decay: an L2 penalty, part of the gradient, at least 0.

    Raises:
        InvalidArgument: a number is out of range.

    >>> dowg()
    dowg(lr=1.0, initial=0.0001, eps=0.0001)
    """
    return alias("dowg", decay_weights(weight_decay), scale_by_dowg(initial, eps), scale_by_learning_rate(lr))


def prodigy(
    lr: Hyper = 1.0,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    b3: Hyper | None = None,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    initial: Number = 1e-6,
    growth: Hyper = 1.0,
    safeguard: bool = False,
) -> Transform:
    """Return Prodigy, AdamW that finds its rate. See `scale_by_prodigy` for the maths and its source.

    Keeps four numbers for each parameter.

    Args:
        lr: a factor of the rate that it finds, at least 0: 1, or a schedule that falls from there.
        b1: in [0, 1), the decay of the mean of the gradients.
        b2: in [0, 1), the decay of the mean of their squares.
        b3: in [0, 1), the decay of the sums of the estimate; None for sqrt(b2).
        eps: at least 0, keeps the divisor away from zero.
        weight_decay: at least 0, decoupled, multiplied by the rate.
        initial: above 0, where the estimate begins.
        growth: at least 0, a factor of the estimates.
        safeguard: whether the estimate is robust against a long warm-up.

    Raises:
        InvalidArgument: a number is out of range.

    >>> prodigy(weight_decay=0.01)
    prodigy(lr=1.0, eps=1e-08, growth=1.0, b1=0.9, b2=0.999, weight_decay=0.01)
    """
    return alias("prodigy", scale_by_prodigy(lr, b1, b2, b3, eps, weight_decay, initial, growth, safeguard), negate)


def polyak_sgd(
    lr: Hyper = 1.0, most: Hyper = 1.0, lowest: Hyper = 0.0, eps: Hyper = 0.0, only_down: bool = False
) -> Transform:
    """Return descent by Polyak's rule. See `scale_by_polyak` for the maths and its source. It keeps nothing.

    Args:
        lr: a factor, at least 0.
        most: at least 0, the largest rate before this factor.
        lowest: the lowest loss that a batch can have, or an estimate of it.
        eps: at least 0, keeps the divisor away from zero.
        only_down: whether a loss below `lowest` makes no step.

    Raises:
        InvalidArgument: a number is out of range. In `update`, the context has no loss.

    >>> polyak_sgd()
    polyak_sgd(lr=1.0, most=1.0, eps=0.0, lowest=0.0)
    """
    return alias("polyak_sgd", scale_by_polyak(most, lowest, eps, only_down), scale_by_learning_rate(lr))


def schedule_free_sgd(lr: Hyper = 1.0, b1: Number = 0.9, weight_decay: Hyper = 0.0, power: Number = 2.0) -> Transform:
    """Return descent without a schedule. See `schedule_free` for the maths and its source.

    Keeps one number for each parameter. What is evaluated is `evaluation_params(opt_state, params)`.

    Args:
        lr: the learning rate, at least 0, constant or with a warm-up alone.
        b1: in (0, 1), how near the mean gradients are taken.
        weight_decay: an L2 penalty, part of the gradient, at least 0.
        power: at least 0, by which steps of a warm-up count less.

    Raises:
        InvalidArgument: a number is out of range.

    >>> schedule_free_sgd(lr=0.5)
    schedule_free_sgd(lr=0.5)
    """

    def descent(lr: Hyper) -> Transform:
        return alias("sgd", decay_weights(weight_decay), scale_by_learning_rate(lr))

    return alias("schedule_free_sgd", schedule_free(descent, lr, b1, power))


def schedule_free_adamw(
    lr: Hyper = 2.5e-3,
    b1: Number = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    power: Number = 2.0,
) -> Transform:
    """Return AdamW without a schedule. See `schedule_free` for the maths and its source.

    The step inside is that of `scale_by_rms_without_bias`. Keeps two numbers for each parameter. What is evaluated is
    `evaluation_params(opt_state, params)`.

    Args:
        lr: the learning rate, at least 0, constant or with a warm-up alone.
        b1: in (0, 1), how near the mean gradients are taken.
        b2: in [0, 1), the decay of the mean of the squares of the gradients.
        eps: at least 0, keeps the divisor away from zero.
        weight_decay: at least 0, decoupled, multiplied by the learning rate.
        power: at least 0, by which steps of a warm-up count less.

    Raises:
        InvalidArgument: a number is out of range.

    >>> schedule_free_adamw(lr=0.01).hypers["lr"]
    0.01
    """

    def adamw(lr: Hyper) -> Transform:
        return alias(
            "adamw", scale_by_rms_without_bias(b2, eps), decay_weights(weight_decay), scale_by_learning_rate(lr)
        )

    return alias("schedule_free_adamw", schedule_free(adamw, lr, b1, power))
