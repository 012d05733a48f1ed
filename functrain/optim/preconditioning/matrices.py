"""What is done to whole matrices: their views, their inverse roots, and the bases of their columns."""

import math

import torch
from torch import Tensor

from functrain.engine import custom_gradient


def as_matrix(a: Tensor) -> Tensor:
    """Return an array as a matrix of its first axis by all others; a vector is a column.

    >>> as_matrix(torch.zeros(4, 3, 2)).shape, as_matrix(torch.zeros(4)).shape
    (torch.Size([4, 6]), torch.Size([4, 1]))
    """
    return a.reshape(a.shape[0], math.prod(a.shape[1:]))


def inverse_root(a: Tensor, order: int, floor: float) -> Tensor:
    """Return a^(-1 / order) of a symmetric matrix whose eigenvalues are at least `floor` but for rounding.

    Its derivative is finite also where eigenvalues are equal, in which case that of their vectors is not.

    Args:
        a: (n, n), symmetric.
        order: at least 1.
        floor: above 0, what smaller eigenvalues count as.

    >>> inverse_root(torch.diag(torch.tensor([4.0, 16.0])), 2, 1e-6)
    tensor([[0.5000, 0.0000],
            [0.0000, 0.2500]])
    """
    return _inverse_root(a, order, floor)


@custom_gradient
def _inverse_root(a: Tensor, order: int, floor: float):
    values, vectors = _eigen(a)
    values = values.clamp(min=floor)
    powers = values ** (-1 / order)

    def pull(cotangent: Tensor) -> tuple[Tensor, None, None]:
        # The formula of Daleckii and Krein: quotients of differences, or the derivative where there is no difference.
        apart = values[:, None] - values
        middle = (values[:, None] + values) / 2
        near = apart.abs() <= 1e-5 * middle
        quotients = (powers[:, None] - powers) / torch.where(near, 1.0, apart)
        slopes = torch.where(near, -1 / order * middle ** (-1 / order - 1), quotients)
        inner = vectors.mT @ ((cotangent + cotangent.mT) / 2) @ vectors
        return vectors @ (slopes * inner) @ vectors.mT, None, None

    return (vectors * powers) @ vectors.mT, pull


def eigenbasis(a: Tensor) -> Tensor:
    """Return the eigenvectors of a symmetric matrix as columns, the largest eigenvalue first.

    >>> eigenbasis(torch.diag(torch.tensor([4.0, 16.0]))).abs()
    tensor([[0., 1.],
            [1., 0.]])
    """
    return _eigen(a)[1].flip(1)


def _eigen(a: Tensor) -> tuple[Tensor, Tensor]:
    # LAPACK's iteration in float32 does not always end where rows are 0, as those of units that are never active.
    values, vectors = torch.linalg.eigh(a.double())
    return values.to(a.dtype), vectors.to(a.dtype)


def refined_basis(a: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Return a basis that is nearer the eigenvectors of a symmetric matrix, by one power iteration, and its order.

    Args:
        a: (n, n), symmetric.
        basis: (n, n), orthonormal columns.

    Returns:
        The new columns, from the largest estimate of an eigenvalue on; and the old column that each is made of, (n,).

    >>> refined_basis(torch.diag(torch.tensor([4.0, 16.0])), torch.eye(2))[1]
    tensor([1, 0])
    """
    order = ((a @ basis) * basis).sum(0).argsort(descending=True)
    return torch.linalg.qr(a @ basis[:, order]).Q, order


def leading_vectors(a: Tensor, rank: int) -> Tensor:
    """Return the first left singular vectors of a matrix (n, m) as columns (n, rank), the largest element positive.

    >>> leading_vectors(torch.diag(torch.tensor([4.0, -16.0])), 1)
    tensor([[0.],
            [1.]])
    """
    vectors = torch.linalg.svd(a, full_matrices=False).U[:, :rank]
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return vectors * torch.where(largest < 0, -1.0, 1.0)
