"""Clips of whole arrays: by the norm of all together, or of each."""

from typing import Any

import torch
from torch import Tensor

from functrain import schedule, tree
from functrain.norms import scaled_norm
from functrain.optim.arithmetic import length, rms, scalar_like
from functrain.optim.context import Context
from functrain.optim.leaves import per_leaf
from functrain.optim.primitives.scaling import scale_leaves
from functrain.optim.transform import Transform, stateless
from functrain.schedule import Hyper


def clip_by_global_norm(max_norm: Hyper) -> Transform:
    """Return the transform that shortens what is too long: u = g * min(1, max_norm / |g|).

    |g| is the Euclidean norm of all leaves taken as one vector, so the direction stays; no square on the way to it
    overflows. Where an element is NaN or infinite every update becomes NaN; it is not hidden. (Pascanu et al., 2013, https://proceedings.mlr.press/v28/pascanu13.html.)

    Args:
        max_norm: at least 0; the hyperparameter "max_norm".

    Raises:
        InvalidArgument: the norm is no number, or negative.

    >>> clip_by_global_norm(1.0).update({"w": torch.tensor([3.0, 4.0])}, (), {"w": torch.zeros(2)})
    ({'w': tensor([0.6000, 0.8000])}, ())
    """
    schedule.check_hyper("max_norm", max_norm, minimum=0)

    def f(updates: Any, params: Any, context: Context) -> Any:
        unit, norm = scaled_norm(tree.leaves(updates))
        limit = schedule.value(max_norm, context)
        # The division where the norm is not zero: 0 / 0 would be NaN for max_norm 0 and no gradient at all.
        factor = (limit / unit / (norm + (norm == 0))).clamp(max=1.0)
        factor = torch.where(norm.isfinite(), factor, torch.nan)
        # In two steps, since the factor of a very large norm is no normal number of a short dtype.
        first = torch.where(factor > 0, factor, 1.0).detach().sqrt()
        return scale_leaves(scale_leaves(updates, first), factor / first)

    return stateless(f, {"max_norm": max_norm}, label="clip_by_global_norm")


def clip_by_block_rms(threshold: Hyper) -> Transform:
    """Return the transform that shortens each leaf whose elements are too large: u = g / max(1, RMS(g) / threshold).

    RMS is the root of the mean square of a leaf's elements. Where an element is NaN or infinite all of its leaf becomes
    NaN. (Shazeer and Stern, 2018, section 6, https://arxiv.org/abs/1804.04235.)

    Args:
        threshold: at least 0; the hyperparameter "threshold".

    Raises:
        InvalidArgument: the threshold is no number, or negative.

    >>> clip_by_block_rms(1.0).update({"w": torch.tensor([4.0, -4.0])}, (), {"w": torch.zeros(2)})[0]
    {'w': tensor([ 1., -1.])}
    """
    schedule.check_hyper("threshold", threshold, minimum=0)

    def formula(now, g: Tensor, p: Tensor) -> Tensor:
        size = rms(g)
        # The division where the leaf is too large: 0 / 0 would be NaN for a threshold of 0 and no gradient at all.
        longer = size > scalar_like(size, now.threshold)
        excess = torch.where(longer, size / now.threshold, 1.0)
        return g / torch.where(size.isfinite(), excess, torch.nan)

    return per_leaf("clip_by_block_rms", formula, {"threshold": threshold})


def clip_by_block_norm(max_norm: Hyper) -> Transform:
    """Return the transform that shortens each leaf that is too long: u = g * min(1, max_norm / |g|).

    |g| is the Euclidean norm of a leaf. Where an element is NaN or infinite all of its leaf becomes NaN.

    Args:
        max_norm: at least 0; the hyperparameter "max_norm".

    Raises:
        InvalidArgument: the norm is no number, or negative.

    >>> gradients = {"w": torch.tensor([3.0, 4.0]), "b": torch.tensor([0.5])}
    >>> clip_by_block_norm(1.0).update(gradients, (), gradients)[0]
    {'w': tensor([0.6000, 0.8000]), 'b': tensor([0.5000])}
    """
    schedule.check_hyper("max_norm", max_norm, minimum=0)

    def formula(now, g: Tensor, p: Tensor) -> Tensor:
        size, most = length(g), scalar_like(g, now.max_norm)
        longer = size > most
        factor = torch.where(longer, most / torch.where(longer, size, 1.0), 1.0)
        return g * torch.where(size.isfinite(), factor, torch.nan)

    return per_leaf("clip_by_block_norm", formula, {"max_norm": max_norm})
