"""Initializers: the first values of parameters, as pure functions of a random key and a shape.

Each function of this module that is named for a kind of values returns an initializer:
`initializer(key, shape, dtype=torch.float32) -> tensor`, on the key's device. Weights have PyTorch's layout:
(out, in, *kernel), with `in` counted per group.

>>> import math
>>> from functrain import random
>>> kaiming_uniform()(random.key(0), (50, 784)).abs().max() <= math.sqrt(2) * math.sqrt(3 / 784)
tensor(True)
"""

from functrain.initializers.fixed import constant, normal, ones, truncated_normal, uniform, zeros
from functrain.initializers.scaled import (
    kaiming_normal,
    kaiming_uniform,
    lecun_normal,
    lecun_uniform,
    orthogonal,
    torch_default,
    torch_default_bias,
    xavier_normal,
    xavier_uniform,
)
from functrain.initializers.scales import Fan, Initializer, Shape, fans, gain, receptive_field

__all__ = [
    "Fan",
    "Initializer",
    "Shape",
    "constant",
    "fans",
    "gain",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "ones",
    "orthogonal",
    "receptive_field",
    "torch_default",
    "torch_default_bias",
    "truncated_normal",
    "uniform",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]


def __dir__() -> list[str]:
    return __all__
