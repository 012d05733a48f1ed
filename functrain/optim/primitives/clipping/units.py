"""Clips of units: the rows of a matrix, the filters of a convolution, or all of a vector."""

import torch
from torch import Tensor

from functrain import schedule
from functrain.optim.arithmetic import root, scalar_like
from functrain.optim.hypers import nonnegative
from functrain.optim.leaves import per_leaf
from functrain.optim.transform import Transform
from functrain.schedule import Hyper


def clip_by_unit_norm(max_norm: Hyper) -> Transform:
    """Return the transform that shortens each unit that is too long: u = g * min(1, max_norm / |g|).

    |g| is the Euclidean norm of a unit: of what belongs to one index of the first axis (what one output is made of, in
    PyTorch's layout), and of a whole vector or scalar. Where an element is NaN or infinite all of its unit becomes NaN.

    Args:
        max_norm: at least 0; the hyperparameter "max_norm".

    Raises:
        InvalidArgument: the norm is no number, or negative.
        DtypeMismatch: in `init`, a parameter is complex.

    >>> params = {"w": torch.zeros(2, 2)}
    >>> clip_by_unit_norm(1.0).update({"w": torch.tensor([[3.0, 4.0], [0.1, 0.2]])}, (), params)[0]
    {'w': tensor([[0.6000, 0.8000],
            [0.1000, 0.2000]])}
    """
    schedule.check_hyper("max_norm", max_norm, minimum=0)

    def formula(now, g: Tensor, p: Tensor) -> Tensor:
        return _shortened(g, scalar_like(g, now.max_norm))

    return per_leaf("clip_by_unit_norm", formula, {"max_norm": max_norm}, real=True)


def adaptive_grad_clip(clipping: Hyper = 0.01, eps: Hyper = 1e-3) -> Transform:
    """Return the transform that shortens each unit of a gradient that is too long beside its parameters.

    u = g * min(1, clipping max(|p|, eps) / |g|), unit by unit, see `clip_by_unit_norm`. (Brock et al., 2021, https://arxiv.org/abs/2102.06171.)

    Args:
        clipping: at least 0, the largest ratio of the norms; the hyperparameter "clipping".
        eps: at least 0, for parameters that are almost zero; the hyperparameter "eps".

    Raises:
        InvalidArgument: a number is out of range.
        DtypeMismatch: in `init`, a parameter is complex.

    >>> params = {"w": torch.tensor([[1.0, 0.0], [0.0, 2.0]])}
    >>> adaptive_grad_clip(0.5).update({"w": torch.tensor([[3.0, 4.0], [3.0, 4.0]])}, (), params)[0]
    {'w': tensor([[0.3000, 0.4000],
            [0.6000, 0.8000]])}
    """

    def formula(now, g: Tensor, p: Tensor) -> Tensor:
        return _shortened(g, torch.maximum(_norm(p), scalar_like(p, now.eps)) * now.clipping)

    return per_leaf("adaptive_grad_clip", formula, nonnegative(clipping=clipping, eps=eps), real=True)


def _norm(a: Tensor) -> Tensor:
    axes = list(range(1, a.dim())) if a.dim() > 1 else [0]
    return root((a * a).sum(axes, keepdim=True))


def _shortened(g: Tensor, most: Tensor) -> Tensor:
    size = _norm(g)
    longer = size > most
    factor = torch.where(longer, most / torch.where(longer, size, 1.0), 1.0)
    return g * torch.where(size.isfinite(), factor, torch.nan)
