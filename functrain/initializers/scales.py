"""What scales depend on: how many inputs and outputs a value has, and the gain of its activation."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor

from functrain.errors import ShapeMismatch

Shape = Sequence[int]
Initializer = Callable[..., Tensor]
"""(key, shape, dtype=torch.float32) -> the values."""


Fan = Literal["fan_in", "fan_out"]


# What the shape of a weight says.


def receptive_field(shape: Shape) -> int:
    """Return how many input positions one output position sees: the elements of one kernel, 1 for a dense weight.

    Args:
        shape: a weight's shape, (out, in, *kernel).

    Raises:
        ShapeMismatch: the shape has fewer than two axes, or an empty one.

    >>> receptive_field((32, 1, 5, 5)), receptive_field((10, 50))
    (25, 1)
    """
    if len(shape) < 2 or min(shape) < 1:
        raise ShapeMismatch(
            f"a weight needs the axes (out, in, *kernel), each of at least 1, got shape {tuple(shape)}; "
            "for other parameters take zeros, ones, constant, normal or uniform"
        )
    return math.prod(shape[2:])


def fans(shape: Shape) -> tuple[int, int]:
    """Return fan-in and fan-out: how many inputs make an output, and how many outputs an input goes to.

    Args:
        shape: a weight's shape, (out, in, *kernel). For a convolution in groups the fan-out is PyTorch's, over all
            groups.

    Raises:
        ShapeMismatch: the shape has fewer than two axes, or an empty one.

    >>> fans((32, 1, 5, 5))
    (25, 800)
    """
    field = receptive_field(shape)
    return shape[1] * field, shape[0] * field


def gain(a: float = 0.0) -> float:
    """Return the factor that keeps the mean square through a leaky ReLU: sqrt(2 / (1 + a^2)).

    Args:
        a: the slope of the leaky ReLU for negative inputs: 0 is ReLU, 1 is no activation at all.

    Reference: He et al., Delving deep into rectifiers, ICCV 2015, equation 14.

    >>> [round(gain(a), 5) for a in (0, 0.01, 0.1, 1, math.sqrt(5))]
    [1.41421, 1.41414, 1.4072, 1.0, 0.57735]
    """
    return math.sqrt(2.0 / (1.0 + a * a))
