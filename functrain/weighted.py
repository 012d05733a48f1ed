"""Weighted sums over examples: a value of zero weight leaves no trace in the sum or its gradient, even when it is NaN.

Losses and metrics both stand on this, so padding, uneven batches and shards count the same in each.
"""

import math

import torch
from torch import Tensor

from functrain.errors import DtypeMismatch, ShapeMismatch


def total(
    values: Tensor, weight: Tensor | None = None, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor | float]:
    """Return the weighted sum of values, and the weight of it all.

    Args:
        values: (n, ...), one or more values per example.
        weight: (n,), not negative, or of more leading axes of `values`; it counts for each value along the axes that
            it lacks. None counts each value once.
        dtype: what to sum in; by default the dtype of the values, and float32 for shorter ones.

    Returns:
        The sum of weight * value, a scalar, and the sum of the weights of all values.

    Raises:
        ShapeMismatch: the values are a scalar, or the weight has not their leading axes.
        DtypeMismatch: the values are complex.

    >>> total(torch.tensor([1.0, 2.0, float("nan")]), torch.tensor([1.0, 2.0, 0.0]))
    (tensor(5.), tensor(3.))
    """
    check_values(values)
    if weight is None:
        return values.sum(dtype=dtype or wide(values.dtype)), float(values.numel())
    spread, mass = spread_over(values, weight, dtype)
    # Not a multiplication alone: 0 * NaN is NaN, in the sum and in the gradient.
    return (values.masked_fill(spread == 0, 0).to(spread.dtype) * spread).sum(), mass


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which numbers of a dtype are summed: float32 or wider.

    >>> wide(torch.bfloat16), wide(torch.float64)
    (torch.float32, torch.float64)
    """
    return torch.promote_types(dtype, torch.float32)


def check_values(values: Tensor, what: str = "values") -> None:
    """Raise for a scalar, which cannot be one value per example, and for complex values, which have no order.

    >>> check_values(torch.zeros(3))
    """
    if values.dim() == 0:
        raise ShapeMismatch(
            f"{what} must be one per example, shape (n, ...), got a scalar; return them unreduced "
            "(a PyTorch loss takes reduction='none')"
        )
    if values.is_complex():
        raise DtypeMismatch(f"{what} must be real numbers, got {values.dtype}; take their abs() or real part")


def spread_over(values: Tensor, weight: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """Return weights that broadcast to the values, and the weight of it all; the arguments are `total`'s.

    >>> spread_over(torch.zeros(2, 3), torch.tensor([1.0, 2.0]))
    (tensor([[1.],
            [2.]]), tensor(9.))
    """
    if weight.shape != values.shape[: weight.dim()] or weight.dim() == 0:
        raise ShapeMismatch(
            f"weight must have the leading axes of the values, one weight per example or element: the values have "
            f"shape {tuple(values.shape)}, weight has {tuple(weight.shape)}"
        )
    dtype = dtype or wide(values.dtype)
    lacking = values.shape[weight.dim() :]
    mass = weight.sum(dtype=dtype)
    spread = (weight[(...,) + (None,) * len(lacking)] if lacking else weight).to(dtype)
    return spread, mass * math.prod(lacking) if lacking else mass
