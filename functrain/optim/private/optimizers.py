"""DP-SGD as an optimizer."""

from functrain.optim.arithmetic import is_zero
from functrain.optim.chaining import alias
from functrain.optim.primitives import scale_by_learning_rate, trace
from functrain.optim.private.pieces import add_private_noise, clip_per_example
from functrain.optim.transform import Transform
from functrain.schedule import Hyper


def dpsgd(
    lr: Hyper,
    max_norm: Hyper = 1.0,
    noise_multiplier: Hyper = 1.0,
    momentum: Hyper = 0.0,
    lot_size: int | None = None,
) -> Transform:
    """Return descent that is differentially private: the gradient of each example is clipped, and their sum is noisy.

    See `clip_per_example` and `add_private_noise` for the maths and its source. A training step computes the gradient
    of each example where it is asked for; each goes through the model by itself, so what mixes examples (batch norm) is
    refused. How private a training is, an accountant tells from the noise multiplier, the sampling and the number of
    steps: this library has none. The guarantee is for batches that are drawn as it assumes.

    Args:
        lr: the learning rate, at least 0.
        max_norm: at least 0, how long the gradient of an example may be.
        noise_multiplier: at least 0, the deviation of the noise of the sum, in units of max_norm.
        momentum: at least 0.
        lot_size: by what the sum is divided; None for the sum of the batch's weights, which is the number of its rows
            where they have none.

    Raises:
        InvalidArgument: an argument is out of range.

    >>> dpsgd(lr=0.1, max_norm=0.5)
    dpsgd(lr=0.1, max_norm=0.5, noise_multiplier=1.0)
    """
    return alias(
        "dpsgd",
        clip_per_example(max_norm, lot_size),
        add_private_noise(max_norm, noise_multiplier, lot_size),
        None if is_zero(momentum) else trace(momentum),
        scale_by_learning_rate(lr),
    )
