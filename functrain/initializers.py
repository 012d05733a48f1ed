"""Initializers: the first values of parameters, as pure functions of a random key and a shape.

Each function of this module that is named for a kind of values returns an initializer:
`initializer(key, shape, dtype=torch.float32) -> tensor`, on the key's device. Weights have PyTorch's layout:
(out, in, *kernel), with `in` counted per group.

>>> from functrain import random
>>> kaiming_uniform()(random.key(0), (50, 784)).abs().max() <= math.sqrt(2) * math.sqrt(3 / 784)
tensor(True)
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from functrain import random
from functrain.errors import DtypeMismatch, InvalidArgument, ShapeMismatch

Shape = Sequence[int]
Initializer = Callable[..., Tensor]
"""(key, shape, dtype=torch.float32) -> the values."""

Mode = Literal["fan_in", "fan_out"]


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


# Values that do not depend on the fans.


def zeros() -> Initializer:
    """Return the initializer of zeros.

    >>> zeros()(random.key(0), (2,))
    tensor([0., 0.])
    """
    return constant(0.0)


def ones() -> Initializer:
    """Return the initializer of ones.

    >>> ones()(random.key(0), (2,))
    tensor([1., 1.])
    """
    return constant(1.0)


def constant(value: float) -> Initializer:
    """Return the initializer that fills with one value.

    Args:
        value: the value of every element.

    >>> constant(0.5)(random.key(0), (2,))
    tensor([0.5000, 0.5000])
    """

    def initializer(key: Tensor, shape: Shape, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.full(tuple(shape), value, dtype=_check_dtype(dtype), device=key.device)

    return initializer


def uniform(low: float = 0.0, high: float = 1.0) -> Initializer:
    """Return the initializer of uniform draws.

    Args:
        low: the smallest value.
        high: the limit above.

    Raises:
        InvalidArgument: low is not below high.

    >>> uniform(-0.1, 0.1)(random.key(0), (2, 3)).shape
    torch.Size([2, 3])
    """
    if not low < high:
        raise InvalidArgument(f"low must be below high, got low={low!r} and high={high!r}")

    def initializer(key: Tensor, shape: Shape, dtype: torch.dtype = torch.float32) -> Tensor:
        return random.uniform(key, tuple(shape), low, high, dtype=_check_dtype(dtype))

    return initializer


def normal(std: float = 1.0, mean: float = 0.0) -> Initializer:
    """Return the initializer of normal draws.

    Args:
        std: the standard deviation, not negative.
        mean: the mean.

    Raises:
        InvalidArgument: std is negative.

    >>> normal(std=0.02)(random.key(0), (2, 3)).shape
    torch.Size([2, 3])
    """
    _check_std(std)

    def initializer(key: Tensor, shape: Shape, dtype: torch.dtype = torch.float32) -> Tensor:
        return (random.normal(key, tuple(shape), dtype=_working(dtype)) * std + mean).to(dtype)

    return initializer


def truncated_normal(std: float = 1.0, mean: float = 0.0, low: float = -2.0, high: float = 2.0) -> Initializer:
    """Return the initializer of normal draws of which none lies far out.

    The limits count in standard deviations from the mean, so the draws' own deviation is less than `std`: 0.8796 of it
    for the default limits.

    Args:
        std: the standard deviation of the normal distribution that is cut, not negative.
        mean: its mean.
        low: the lower limit, in standard deviations from the mean.
        high: the upper limit, in the same unit.

    Raises:
        InvalidArgument: std is negative, or low is not below high.

    >>> truncated_normal(std=0.02)(random.key(0), (100, 100)).abs().max() <= 0.04
    tensor(True)
    """
    _check_std(std)
    if not low < high:
        raise InvalidArgument(f"low must be below high, got low={low!r} and high={high!r}")

    def initializer(key: Tensor, shape: Shape, dtype: torch.dtype = torch.float32) -> Tensor:
        draws = random.truncated_normal(key, tuple(shape), low, high, dtype=_working(dtype))
        return (draws * std + mean).to(dtype)

    return initializer


def _check_std(std: float) -> None:
    if not std >= 0:
        raise InvalidArgument(f"std must be at least 0, got {std!r}")


def _check_dtype(dtype: torch.dtype) -> torch.dtype:
    if not dtype.is_floating_point:
        raise DtypeMismatch(f"dtype must be a floating-point dtype, such as torch.float32, got {dtype}")
    return dtype


def _working(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype to compute in: values are rounded to a dtype of 16 bits once, at the end."""
    return torch.promote_types(_check_dtype(dtype), torch.float32)


# Values scaled by the fans: the standard deviation follows from the shape.


def kaiming_uniform(a: float = 0.0, mode: Mode = "fan_in") -> Initializer:
    """Return the initializer of He et al. in its uniform form: bound sqrt(3) * gain(a) / sqrt(fan).

    Args:
        a: the slope for negative inputs of the leaky ReLU that follows, 0 for ReLU.
        mode: "fan_in" keeps the mean square of activations, "fan_out" that of gradients.

    Raises:
        InvalidArgument: mode is neither.

    Reference: He et al., Delving deep into rectifiers, ICCV 2015.

    >>> kaiming_uniform(a=1.0)(random.key(0), (10, 3)).abs().max() <= 1.0
    tensor(True)
    """
    return _uniform_of(_kaiming_std(a, mode))


def kaiming_normal(a: float = 0.0, mode: Mode = "fan_in") -> Initializer:
    """Return the initializer of He et al. in its normal form: std gain(a) / sqrt(fan).

    Args:
        a: the slope for negative inputs of the leaky ReLU that follows, 0 for ReLU.
        mode: "fan_in" keeps the mean square of activations, "fan_out" that of gradients.

    Raises:
        InvalidArgument: mode is neither.

    Reference: He et al., Delving deep into rectifiers, ICCV 2015.

    >>> kaiming_normal()(random.key(0), (32, 1, 5, 5)).shape
    torch.Size([32, 1, 5, 5])
    """
    return _normal_of(_kaiming_std(a, mode))


def xavier_uniform(gain: float = 1.0) -> Initializer:
    """Return the initializer of Glorot and Bengio in its uniform form: bound gain * sqrt(6 / (fan_in + fan_out)).

    Args:
        gain: a factor for the activation that follows.

    Reference: Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks,
    AISTATS 2010, equation 16.

    >>> xavier_uniform()(random.key(0), (3, 3)).abs().max() <= 1.0
    tensor(True)
    """
    return _uniform_of(_xavier_std(gain))


def xavier_normal(gain: float = 1.0) -> Initializer:
    """Return the initializer of Glorot and Bengio in its normal form: std gain * sqrt(2 / (fan_in + fan_out)).

    Args:
        gain: a factor for the activation that follows.

    Reference: Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks,
    AISTATS 2010.

    >>> xavier_normal()(random.key(0), (10, 5)).shape
    torch.Size([10, 5])
    """
    return _normal_of(_xavier_std(gain))


def lecun_uniform() -> Initializer:
    """Return the initializer of LeCun et al. in its uniform form: bound sqrt(3 / fan_in).

    Reference: LeCun et al., Efficient BackProp, 1998, section 4.6.

    >>> lecun_uniform()(random.key(0), (10, 3)).abs().max() <= 1.0
    tensor(True)
    """
    return _uniform_of(_lecun_std)


def lecun_normal() -> Initializer:
    """Return the initializer of LeCun et al. in its normal form: std 1 / sqrt(fan_in); also SELU's.

    Reference: LeCun et al., Efficient BackProp, 1998, section 4.6.

    >>> lecun_normal()(random.key(0), (10, 5)).shape
    torch.Size([10, 5])
    """
    return _normal_of(_lecun_std)


def torch_default() -> Initializer:
    """Return the initializer that PyTorch itself has for the weights of its linear and convolution layers.

    It is `kaiming_uniform(a=sqrt(5))`, with the bound 1 / sqrt(fan_in). Its gain of 0.577 lets gradients
    vanish in deep nets.

    >>> torch_default()(random.key(0), (10, 4)).abs().max() <= 0.5
    tensor(True)
    """
    return kaiming_uniform(a=math.sqrt(5.0))


def torch_default_bias(fan_in: int | None = None) -> Initializer:
    """Return the initializer that PyTorch has for biases: uniform in +-1 / sqrt(fan_in), of the weight's fan-in.

    A bias does not know the fan-in from its own shape. It is given here, or when the initializer is called, as the
    layers do: `initializer(key, shape, dtype, fan_in=784)`.

    Args:
        fan_in: the fan-in of the layer's weight, at least 1; None to be told when called.

    Raises:
        InvalidArgument: no fan-in was given in either place, or it is less than 1.

    >>> torch_default_bias(fan_in=100)(random.key(0), (10,)).abs().max() <= 0.1
    tensor(True)
    """
    given = fan_in

    def initializer(
        key: Tensor, shape: Shape, dtype: torch.dtype = torch.float32, *, fan_in: int | None = None
    ) -> Tensor:
        n = fan_in if given is None else given
        if n is None or n < 1:
            raise InvalidArgument(
                f"torch_default_bias needs the weight's fan_in, at least 1, got {n!r}; pass torch_default_bias(fan_in)"
            )
        return uniform(-1.0 / math.sqrt(n), 1.0 / math.sqrt(n))(key, shape, dtype)

    if given is not None and given < 1:
        raise InvalidArgument(f"fan_in must be at least 1, got {given!r}")
    return initializer


def orthogonal(gain: float = 1.0) -> Initializer:
    """Return the initializer of orthogonal matrices: rows (or columns, where those are fewer) of length `gain`.

    A kernel counts as part of the input axis. Such a matrix is drawn uniformly from all of its kind.

    Args:
        gain: the length of each row or column, and so the factor on the norm of a vector.

    Reference: Saxe et al., Exact solutions to the nonlinear dynamics of learning in deep linear neural networks,
    ICLR 2014. Mezzadri, How to generate random matrices from the classical compact groups, 2007, for the signs.

    >>> weight = orthogonal()(random.key(0), (3, 5), torch.float64)
    >>> torch.allclose(weight @ weight.T, torch.eye(3, dtype=torch.float64))
    True
    """

    def initializer(key: Tensor, shape: Shape, dtype: torch.dtype = torch.float32) -> Tensor:
        rows, columns = shape[0], receptive_field(shape) * shape[1]
        # A reduced QR needs a tall matrix, and at least single precision.
        draws = random.normal(key, (max(rows, columns), min(rows, columns)), dtype=_working(dtype))
        q, r = torch.linalg.qr(draws)
        # QR alone favours some signs: with a positive diagonal of R it is unique, and Q uniformly distributed.
        q = q * torch.where(r.diagonal() < 0, -gain, gain)
        return (q.T if rows < columns else q).reshape(tuple(shape)).to(dtype)

    return initializer


def _kaiming_std(a: float, mode: str) -> Callable[[Shape], float]:
    if mode not in ("fan_in", "fan_out"):
        raise InvalidArgument(f"mode must be 'fan_in' or 'fan_out', got {mode!r}")
    which = ("fan_in", "fan_out").index(mode)
    return lambda shape: gain(a) / math.sqrt(fans(shape)[which])


def _xavier_std(gain: float) -> Callable[[Shape], float]:
    return lambda shape: gain * math.sqrt(2.0 / sum(fans(shape)))


def _lecun_std(shape: Shape) -> float:
    return 1.0 / math.sqrt(fans(shape)[0])


def _uniform_of(std_of: Callable[[Shape], float]) -> Initializer:
    """Return the uniform initializer of this standard deviation, which is its bound over sqrt(3)."""

    def initializer(key: Tensor, shape: Shape, dtype: torch.dtype = torch.float32) -> Tensor:
        bound = math.sqrt(3.0) * std_of(shape)
        return random.uniform(key, tuple(shape), -bound, bound, dtype=_check_dtype(dtype))

    return initializer


def _normal_of(std_of: Callable[[Shape], float]) -> Initializer:
    def initializer(key: Tensor, shape: Shape, dtype: torch.dtype = torch.float32) -> Tensor:
        return (random.normal(key, tuple(shape), dtype=_working(dtype)) * std_of(shape)).to(dtype)

    return initializer
