"""Muon: updates of matrices whose singular values are all about 1."""

from typing import Any

import attrs
import torch

from functrain.optim.chaining import alias
from functrain.optim.optimizers.moments import adamw
from functrain.optim.optimizers.shared import decay_weights
from functrain.optim.primitives import ema, orthogonalize, scale_by_learning_rate, scale_by_shape
from functrain.optim.primitives.orthogonal import QUINTIC
from functrain.optim.transform import Transform
from functrain.optim.wrappers import partition
from functrain.optim.wrappers.claiming import Where
from functrain.schedule import Hyper


def muon(
    lr: Hyper = 1e-3,
    weight_decay: Hyper = 0.1,
    momentum: Hyper = 0.95,
    nesterov: bool = True,
    coefficients: tuple[float, float, float] = QUINTIC,
    eps: float = 1e-7,
    steps: int = 5,
    rule: str = "original",
    dtype: torch.dtype | None = torch.bfloat16,
    matrices: Where | None = None,
    others: Transform | None = None,
) -> Transform:
    """Return Muon for matrices, equal to torch.optim.Muon, with AdamW for everything else.

    A mean of the gradients, brought to singular values near 1. See `ema`, `orthogonalize` and `scale_by_shape` for the
    maths and its sources. Keeps one number for each element of a matrix.

    Args:
        lr: the learning rate, at least 0; the hyperparameter "muon.lr".
        weight_decay: at least 0, decoupled, multiplied by the learning rate.
        momentum: in [0, 1), the decay of the mean.
        nesterov: whether to look one step ahead.
        coefficients: of the iteration, see `orthogonalize`.
        eps: keeps the norm away from zero.
        steps: how many iterations.
        rule: how the learning rate depends on a matrix's shape, "original" or "match_rms_adamw", see `scale_by_shape`.
        dtype: in which to iterate; None for the gradient's.
        matrices: which parameters are treated so, see `partition`; by default all that have two axes. Embeddings and
            the last layer are better left to the others.
        others: the optimizer of the rest, by default `adamw(lr, weight_decay=weight_decay)`; with `rule="original"` it
            mostly wants a smaller rate than the matrices.

    Raises:
        InvalidArgument: a number is out of range, or the rule is another. In `init`, `matrices` claims nothing.

    >>> optimizer, params = muon(lr=0.1), {"weight": torch.eye(2), "bias": torch.zeros(2)}
    >>> list(optimizer.hypers)[:3]
    ['muon.momentum', 'muon.weight_decay', 'muon.lr']
    """
    of_matrices = alias(
        "muon",
        ema(momentum, nesterov),
        orthogonalize(coefficients, steps, eps, dtype),
        scale_by_shape(rule),
        decay_weights(weight_decay),
        scale_by_learning_rate(lr),
    )
    others = adamw(lr, weight_decay=weight_decay) if others is None else others
    groups = partition(
        {"muon": of_matrices, "others": others},
        {"muon": is_matrix if matrices is None else matrices, "others": ...},
    )
    return attrs.evolve(groups, label="muon")


def is_matrix(path: str, leaf: Any) -> bool:
    """Return whether a parameter has two axes.

    >>> is_matrix("0.bias", torch.zeros(3))
    False
    """
    return leaf.dim() == 2
