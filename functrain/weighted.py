"""Weighted sums over examples: a value of zero weight leaves no trace in the sum or its gradient, even when it is NaN.

Losses and metrics both stand on this, so padding, uneven batches and shards count the same in each.
"""

import math

import torch
from torch import Tensor

from functrain.errors import ShapeMismatch


def total(
    values: Tensor, weight: Tensor | None = None, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor | float]:
    """Return the weighted sum of values, and the weight of it all.

    Args:
        values: (n, ...), one or more values per example.
        weight: (n,), not negative, or of more leading axes of `values`; it counts for each value along the axes that
            it lacks. None counts each value once.
        dtype: what to sum in; the dtype of the values by default.

    Returns:
        The sum of weight * value, a scalar, and the sum of the weights of all values.

    Raises:
        ShapeMismatch: the values are a scalar, or the weight has not their leading axes.

    >>> total(torch.tensor([1.0, 2.0, float("nan")]), torch.tensor([1.0, 2.0, 0.0]))
    (tensor(5.), tensor(3.))
    """
    check_values(values)
    if weight is None:
        return values.sum(dtype=dtype), float(values.numel())
    spread, mass = spread_over(values, weight, dtype)
    # Not a multiplication alone: 0 * NaN is NaN, in the sum and in the gradient.
    return (values.masked_fill(spread == 0, 0).to(spread.dtype) * spread).sum(), mass


def check_values(values: Tensor) -> None:
    """Raise `ShapeMismatch` for a scalar, which cannot be one value per example.

    >>> check_values(torch.zeros(3))
    """
    if values.dim() == 0:
        raise ShapeMismatch(
            "values must be one per example, shape (n, ...), got a scalar; return them unreduced "
            "(a PyTorch loss takes reduction='none')"
        )


def spread_over(values: Tensor, weight: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """Return weights that broadcast to the values, and the weight of it all; the arguments are `total`'s.

    >>> spread_over(torch.zeros(2, 3), torch.tensor([1.0, 2.0]))
    (tensor([[1.],
            [2.]]), tensor(9.))
    """
    if weight.shape != values.shape[: weight.dim()] or weight.dim() == 0:
        raise ShapeMismatch(
            f"weight must have the leading axes of the values, one weight per example: the values have shape "
            f"{tuple(values.shape)}, weight has {tuple(weight.shape)}"
        )
    dtype = dtype or (values.dtype if values.is_floating_point() else weight.dtype)
    lacking = values.shape[weight.dim() :]
    mass = weight.sum(dtype=dtype)
    spread = (weight[(...,) + (None,) * len(lacking)] if lacking else weight).to(dtype)
    return spread, mass * math.prod(lacking) if lacking else mass
