"""Dropout."""

import torch
from torch import Tensor

from functrain import random, schedule
from functrain.errors import InvalidArgument
from functrain.nn.formula import stateful_layer
from functrain.nn.mode import layer_key
from functrain.nn.model import Model
from functrain.nn.takes import floating
from functrain.schedule import Hyper


def dropout(rate: Hyper = 0.5) -> Model:
    """Return the layer that, in training, sets each element to zero with probability `rate`.

    The probability of keeping, 1 - rate, is rounded to a multiple of 2**-16 (from 2**-16 to 1), and what is kept is
    divided by that very number, so that the expected output is the input; evaluation returns the input. The draws,
    `random.dropout_mask`, come from the layer's key, `layer_key(mode)`.

    Args:
        rate: a number of at least 0 and below 1, or a schedule of it.

    Raises:
        InvalidArgument: the rate is outside; a schedule's is seen when it is applied with a plain number.
        InvalidKey: when applied in training, the mode has no key.

    Reference: Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, JMLR 2014.

    >>> from functrain import nn
    >>> y, _ = dropout(0.5).apply({}, {}, torch.ones(1000), nn.training(random.key(0)))
    >>> y.unique()
    tensor([0., 2.])
    """
    schedule.check_hyper("rate", rate, minimum=0, below=1)

    def apply(p, b, x, mode):
        now = _rate_now(rate, mode) if mode.train else 0
        if not isinstance(now, Tensor) and now == 0:
            return x, b
        # In float32 for shorter dtypes, where the rounded factor would be off by a constant part.
        wide = torch.promote_types(x.dtype, torch.float32)
        return (x * random.dropout_mask(layer_key(mode), now, tuple(x.shape), wide)).to(x.dtype), b

    return stateful_layer(f"dropout({rate})", None, None, apply, takes=floating, hypers={"rate": rate})


def _rate_now(rate, mode):
    now = schedule.value(rate, mode.progress)
    if not isinstance(now, Tensor) and not 0 <= now < 1:
        raise InvalidArgument(f"dropout: rate must be at least 0 and below 1, got {now!r} from its schedule")
    return now
