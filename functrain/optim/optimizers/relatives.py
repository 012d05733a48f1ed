"""Adam's relatives that PyTorch has not: other squares, other means, and masks."""

from functrain.optim.chaining import alias
from functrain.optim.optimizers.shared import decay_weights
from functrain.optim.primitives import (
    scale_by_adam,
    scale_by_ademamix,
    scale_by_adopt,
    scale_by_belief,
    scale_by_learning_rate,
    scale_by_lion,
    scale_by_yogi,
)
from functrain.optim.transform import Transform
from functrain.optim.wrappers import scale_by_caution
from functrain.optim.wrappers.claiming import Where
from functrain.schedule import Hyper, Number


def adabelief(
    lr: Hyper = 1e-3,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-16,
    eps_root: Hyper = 1e-16,
    weight_decay: Hyper = 0.0,
    decayed: Where | None = None,
) -> Transform:
    """Return AdaBelief, equal to optax.adabelief. See `scale_by_belief` for the maths and its source.

    Keeps two numbers for each parameter.

    Args:
        lr: the learning rate, at least 0.
        b1: in [0, 1), the decay of the mean of the gradients.
        b2: in [0, 1), the decay of the mean of squared distances from it.
        eps: at least 0, keeps the divisor away from zero.
        eps_root: at least 0, added to the mean square in each update.
        weight_decay: at least 0, decoupled, multiplied by the learning rate.
        decayed: which parameters decay, see `add_decayed_weights`; None for all.

    Raises:
        InvalidArgument: a number is out of range.

    >>> adabelief(lr=0.01)
    adabelief(lr=0.01, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16)
    """
    return alias(
        "adabelief",
        scale_by_belief(b1, b2, eps, eps_root),
        decay_weights(weight_decay, decayed),
        scale_by_learning_rate(lr),
    )


def yogi(lr: Hyper = 1e-2, b1: Hyper = 0.9, b2: Hyper = 0.999, eps: Hyper = 1e-3, initial: Number = 1e-6) -> Transform:
    """Return Yogi, equal to optax.yogi. See `scale_by_yogi` for the maths and its source.

    Keeps two numbers for each parameter.

    Args:
        lr: the learning rate, at least 0.
        b1: in [0, 1), the decay of the mean of the gradients.
        b2: in [0, 1), how slowly their squares change.
        eps: at least 0, keeps the divisor away from zero.
        initial: at least 0, where the mean and the squares begin.

    Raises:
        InvalidArgument: a number is out of range.

    >>> yogi(lr=0.01)
    yogi(lr=0.01, b1=0.9, b2=0.999, eps=0.001)
    """
    return alias("yogi", scale_by_yogi(b1, b2, eps, initial), scale_by_learning_rate(lr))


def ademamix(
    lr: Hyper = 1e-3,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    b3: Hyper = 0.9999,
    alpha: Hyper = 5.0,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    decayed: Where | None = None,
) -> Transform:
    """Return AdEMAMix, equal to optax.contrib.ademamix. See `scale_by_ademamix` for the maths and its source.

    Keeps three numbers for each parameter.

    Args:
        lr: the learning rate, at least 0.
        b1: in [0, 1), the decay of the mean of the gradients.
        b2: in [0, 1), the decay of the mean of their squares.
        b3: in [0, 1), the decay of the slow mean.
        alpha: at least 0, the weight of the slow mean.
        eps: at least 0, keeps the divisor away from zero.
        weight_decay: at least 0, decoupled, multiplied by the learning rate.
        decayed: which parameters decay, see `add_decayed_weights`; None for all.

    Raises:
        InvalidArgument: a number is out of range.

    >>> ademamix(lr=0.01)
    ademamix(lr=0.01, b1=0.9, b2=0.999, b3=0.9999, alpha=5.0, eps=1e-08)
    """
    return alias(
        "ademamix",
        scale_by_ademamix(b1, b2, b3, alpha, eps),
        decay_weights(weight_decay, decayed),
        scale_by_learning_rate(lr),
    )


def adopt(
    lr: Hyper = 1e-3,
    b1: Hyper = 0.9,
    b2: Hyper = 0.9999,
    eps: Hyper = 1e-6,
    clip: bool = True,
    weight_decay: Hyper = 0.0,
    decayed: Where | None = None,
) -> Transform:
    """Return ADOPT, which converges with any b2, equal to optax.contrib.adopt. See `scale_by_adopt` for the maths.

    Keeps two numbers for each parameter. The first update moves nothing.

    Args:
        lr: the learning rate, at least 0.
        b1: in [0, 1), the decay of the mean.
        b2: in [0, 1), the decay of the mean of squares.
        eps: at least 0, the least divisor.
        clip: whether what is divided is kept within limits, which grow.
        weight_decay: at least 0, decoupled, multiplied by the learning rate.
        decayed: which parameters decay, see `add_decayed_weights`; None for all.

    Raises:
        InvalidArgument: a number is out of range.

    >>> adopt(lr=0.01)
    adopt(lr=0.01, b1=0.9, b2=0.9999, eps=1e-06)
    """
    return alias(
        "adopt",
        scale_by_adopt(b1, b2, eps, clip),
        decay_weights(weight_decay, decayed),
        scale_by_learning_rate(lr),
    )


def cautious_adamw(
    lr: Hyper = 1e-3,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 1e-2,
    decayed: Where | None = None,
) -> Transform:
    """Return AdamW that moves only what agrees with the gradient (C-AdamW). See `cautious` for the maths.

    Weight decay is not masked. (Liang et al., 2024, https://arxiv.org/abs/2411.16085.) Keeps two numbers for each
    parameter.

    Args:
        lr: the learning rate, at least 0.
        b1: in [0, 1), the decay of the mean of the gradients.
        b2: in [0, 1), the decay of the mean of their squares.
        eps: at least 0, keeps the divisor away from zero.
        weight_decay: at least 0, decoupled, multiplied by the learning rate.
        decayed: which parameters decay, see `add_decayed_weights`; None for all.

    Raises:
        InvalidArgument: a number is out of range.

    >>> cautious_adamw(lr=0.01)
    cautious_adamw(lr=0.01, b1=0.9, b2=0.999, eps=1e-08, weight_decay=0.01)
    """
    return alias(
        "cautious_adamw",
        scale_by_caution(scale_by_adam(b1, b2, eps)),
        decay_weights(weight_decay, decayed),
        scale_by_learning_rate(lr),
    )


def cautious_lion(
    lr: Hyper = 1e-4,
    b1: Hyper = 0.9,
    b2: Hyper = 0.99,
    weight_decay: Hyper = 0.0,
    decayed: Where | None = None,
) -> Transform:
    """Return Lion that moves only what agrees with the gradient (C-Lion). See `cautious` for the maths.

    Weight decay is not masked. (Liang et al., 2024, https://arxiv.org/abs/2411.16085.) Keeps one number for each
    parameter.

    Args:
        lr: the learning rate, at least 0.
        b1: in [0, 1), the weight of the mean beside the gradient.
        b2: in [0, 1), the decay of the mean.
        weight_decay: at least 0, decoupled, multiplied by the learning rate.
        decayed: which parameters decay, see `add_decayed_weights`; None for all.

    Raises:
        InvalidArgument: a number is out of range.

    >>> cautious_lion(lr=1e-4)
    cautious_lion(lr=0.0001, b1=0.9, b2=0.99)
    """
    return alias(
        "cautious_lion",
        scale_by_caution(scale_by_lion(b1, b2)),
        decay_weights(weight_decay, decayed),
        scale_by_learning_rate(lr),
    )
