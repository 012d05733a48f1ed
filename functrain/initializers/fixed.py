"""Values that do not depend on the shape: constants, and draws from one distribution."""

import torch
from torch import Tensor

from functrain import random
from functrain.errors import DtypeMismatch, InvalidArgument
from functrain.initializers.scales import Initializer, Shape


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
        return torch.full(tuple(shape), value, dtype=check_dtype(dtype), device=key.device)

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
        return random.uniform(key, tuple(shape), low, high, dtype=check_dtype(dtype))

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
        return (random.normal(key, tuple(shape), dtype=working(dtype)) * std + mean).to(dtype)

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
        draws = random.truncated_normal(key, tuple(shape), low, high, dtype=working(dtype))
        return (draws * std + mean).to(dtype)

    return initializer


def _check_std(std: float) -> None:
    if not std >= 0:
        raise InvalidArgument(f"std must be at least 0, got {std!r}")


def check_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return a dtype after checking that it is one of floating-point numbers."""
    if not dtype.is_floating_point:
        raise DtypeMismatch(f"dtype must be a floating-point dtype, such as torch.float32, got {dtype}")
    return dtype


def working(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype to compute in: values are rounded to a dtype of 16 bits once, at the end."""
    return torch.promote_types(check_dtype(dtype), torch.float32)
