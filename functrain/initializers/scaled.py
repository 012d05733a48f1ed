"""Values whose scale depends on the shape: as large as keeps signals or gradients at their size."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from functrain import random
from functrain.errors import InvalidArgument
from functrain.initializers import scales
from functrain.initializers.fixed import check_dtype, uniform, working
from functrain.initializers.scales import Fan, Initializer, Shape, fans, receptive_field


def kaiming_uniform(a: float = 0.0, mode: Fan = "fan_in") -> Initializer:
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


def kaiming_normal(a: float = 0.0, mode: Fan = "fan_in") -> Initializer:
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

    A bias does not know the fan-in from its own shape. It is an argument here, or of the initializer, as in the layers:
    `initializer(key, shape, dtype, fan_in=784)`.

    Args:
        fan_in: the fan-in of the layer's weight, at least 1; None where it comes with the call.

    Raises:
        InvalidArgument: there is no fan-in in either place, or it is less than 1.

    >>> torch_default_bias(fan_in=100)(random.key(0), (10,)).abs().max() <= 0.1
    tensor(True)
    """
    stated = fan_in

    def initializer(
        key: Tensor, shape: Shape, dtype: torch.dtype = torch.float32, *, fan_in: int | None = None
    ) -> Tensor:
        n = fan_in if stated is None else stated
        if n is None or n < 1:
            raise InvalidArgument(
                f"torch_default_bias needs the weight's fan_in, at least 1, got {n!r}; pass torch_default_bias(fan_in)"
            )
        return uniform(-1.0 / math.sqrt(n), 1.0 / math.sqrt(n))(key, shape, dtype)

    if stated is not None and stated < 1:
        raise InvalidArgument(f"fan_in must be at least 1, got {stated!r}")
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
        draws = random.normal(key, (max(rows, columns), min(rows, columns)), dtype=working(dtype))
        q, r = torch.linalg.qr(draws)
        # QR alone favours some signs: with a positive diagonal of R it is unique, and Q uniformly distributed.
        q = q * torch.where(r.diagonal() < 0, -gain, gain)
        return (q.T if rows < columns else q).reshape(tuple(shape)).to(dtype)

    return initializer


def _kaiming_std(a: float, mode: str) -> Callable[[Shape], float]:
    if mode not in ("fan_in", "fan_out"):
        raise InvalidArgument(f"mode must be 'fan_in' or 'fan_out', got {mode!r}")
    which = ("fan_in", "fan_out").index(mode)
    return lambda shape: scales.gain(a) / math.sqrt(fans(shape)[which])


def _xavier_std(gain: float) -> Callable[[Shape], float]:
    return lambda shape: gain * math.sqrt(2.0 / sum(fans(shape)))


def _lecun_std(shape: Shape) -> float:
    return 1.0 / math.sqrt(fans(shape)[0])


def _uniform_of(std_of: Callable[[Shape], float]) -> Initializer:
    """Return the uniform initializer of this standard deviation, which is its bound over sqrt(3)."""

    def initializer(key: Tensor, shape: Shape, dtype: torch.dtype = torch.float32) -> Tensor:
        bound = math.sqrt(3.0) * std_of(shape)
        return random.uniform(key, tuple(shape), -bound, bound, dtype=check_dtype(dtype))

    return initializer


def _normal_of(std_of: Callable[[Shape], float]) -> Initializer:
    def initializer(key: Tensor, shape: Shape, dtype: torch.dtype = torch.float32) -> Tensor:
        return (random.normal(key, tuple(shape), dtype=working(dtype)) * std_of(shape)).to(dtype)

    return initializer
