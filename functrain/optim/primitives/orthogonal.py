"""Updates of matrices whose singular values are all about 1: Muon."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from functrain import arguments
from functrain.errors import InvalidArgument, ShapeMismatch
from functrain.optim.hypers import check_fixed
from functrain.optim.leaves import per_leaf
from functrain.optim.transform import Transform
from functrain.schedule.hyper import is_number

QUINTIC = (3.4445, -4.775, 2.0315)
"""Coefficients that raise small singular values quickly, and bring all near 1 instead of to it."""


def orthogonalize(
    coefficients: tuple[float, float, float] = QUINTIC,
    steps: int = 5,
    eps: float = 1e-7,
    dtype: torch.dtype | None = torch.bfloat16,
) -> Transform:
    """Return the transform that brings the singular values of each matrix near 1, by Newton and Schulz's iteration.

    X = g / max(|g|, eps), and then X = a X + (b X X' + c (X X')^2) X, `steps` times; u = X. (Jordan et al., 2024,
    https://kellerjordan.github.io/posts/muon/; as in torch.optim.Muon.)

    Args:
        coefficients: a, b and c.
        steps: how many iterations.
        eps: keeps the norm away from zero.
        dtype: in which to compute; None for the dtype of the gradient.

    Raises:
        InvalidArgument: there are not three coefficients, steps is no whole number, or dtype is none.
        DtypeMismatch: in `init`, a parameter is complex.
        ShapeMismatch: in `update`, something is no matrix.

    >>> piece, params = orthogonalize(), {"w": torch.zeros(2, 2)}
    >>> updates, _ = piece.update({"w": torch.tensor([[30.0, 0.0], [0.0, 20.0]])}, (), params)
    >>> torch.linalg.svdvals(updates["w"]).round(decimals=1)
    tensor([1.1000, 0.7000])
    """
    if not isinstance(coefficients, Sequence) or len(coefficients) != 3 or not all(map(is_number, coefficients)):
        raise InvalidArgument(f"coefficients must be three numbers, got {coefficients!r}")
    arguments.whole("steps", steps, 0)
    check_fixed(eps=eps)
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise InvalidArgument(f"dtype must be a floating-point torch.dtype, or None for the gradient's, got {dtype!r}")

    def formula(now, g: Tensor, p: Tensor) -> Tensor:
        if g.dim() != 2:
            raise ShapeMismatch(
                f"orthogonalize needs matrices, got shape {tuple(g.shape)}; give what is none to another transform "
                "with partition, as optim.muon does"
            )
        tall = g.shape[0] > g.shape[1]
        x = (g.mT if tall else g).to(dtype or g.dtype)
        x = _iterate(x / x.norm().clamp(min=eps), coefficients, steps)
        return x.mT if tall else x

    return per_leaf("orthogonalize", formula, real=True)


def _iterate(x: Tensor, coefficients: tuple[float, float, float], steps: int) -> Tensor:
    a, b, c = coefficients
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def scale_by_shape(rule: str = "original") -> Transform:
    """Return the transform that scales the update of each matrix (n, m) by a number that depends on its shape.

    Args:
        rule: "original": sqrt(max(1, n / m)) (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/);
            "match_rms_adamw": 0.2 sqrt(max(n, m)), so that the learning rates of AdamW fit (Liu et al., 2025,
            https://arxiv.org/abs/2502.16982).

    Raises:
        InvalidArgument: the rule is another.
        DtypeMismatch: in `init`, a parameter is complex.
        ShapeMismatch: in `update`, something is no matrix.

    >>> scale_by_shape().update({"w": torch.ones(4, 1)}, (), {"w": torch.zeros(4, 1)})[0]["w"][0]
    tensor([2.])
    """
    arguments.one_of("rule", rule, tuple(_RULES))

    def formula(now, g: Tensor, p: Tensor) -> Tensor:
        if g.dim() != 2:
            raise ShapeMismatch(f"scale_by_shape needs matrices, got shape {tuple(g.shape)}")
        return g * _RULES[rule](max(g.shape[0], 1), max(g.shape[1], 1))

    return per_leaf("scale_by_shape", formula, real=True)


_RULES = {
    "original": lambda n, m: math.sqrt(max(1.0, n / m)),
    "match_rms_adamw": lambda n, m: 0.2 * math.sqrt(max(n, m)),
}
