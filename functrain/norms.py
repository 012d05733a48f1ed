"""The Euclidean norm of many tensors taken as one vector, where no square overflows or vanishes on the way."""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """Return the norm, a scalar in float32 at least; 0 without tensors.

    It is NaN or infinite where an element is, or where the dtype has no number as large.

    >>> norm([torch.tensor([3.0e30]), torch.tensor([4.0e30])])
    tensor(5.0000e+30)
    """
    unit, relative = scaled_norm(tensors)
    dtypes = [tensor.dtype.to_real() if tensor.is_complex() else tensor.dtype for tensor in tensors]
    return (unit * relative).to(reduce(torch.promote_types, dtypes, torch.float32))


def scaled_norm(tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the norm as a unit times the norm in this unit, two float64 scalars, so that it has no limit of size.

    >>> scaled_norm([torch.tensor([3.0]), torch.tensor([4.0])])
    (tensor(1., dtype=torch.float64), tensor(5., dtype=torch.float64))
    """
    # No square of a shorter dtype is too large or too small for float64.
    shorter = [_norm(tensor) for tensor in tensors if not _is_double(tensor)]
    doubles = [tensor for tensor in tensors if _is_double(tensor) and tensor.numel()]
    if not doubles:
        root = torch.linalg.vector_norm(torch.stack(shorter)) if shorter else torch.zeros((), dtype=torch.float64)
        return torch.ones_like(root), root
    sizes = [tensor.detach().abs().amax() for tensor in doubles]
    size = torch.stack([*sizes, *(one.detach() for one in shorter)]).amax()
    # A norm does not depend on its unit, so the unit is no way for gradients.
    unit = torch.where((size > 0) & size.isfinite(), size, 1.0)
    return unit, torch.linalg.vector_norm(
        torch.stack([_norm(tensor / unit) for tensor in doubles] + [s / unit for s in shorter])
    )


def _is_double(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.float64, torch.complex128)


def _norm(tensor: Tensor) -> Tensor:
    return torch.linalg.vector_norm(tensor, dtype=torch.complex128 if tensor.is_complex() else torch.float64)
