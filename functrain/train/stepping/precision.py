"""Mixed precision: the model computes in a short dtype where that is safe; all that lasts stays as it is."""

from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import tree
from functrain.errors import DtypeMismatch, InvalidArgument
from functrain.nn import Model
from functrain.train.learner import Learner, check_learner
from functrain.train.looping.compiling import keep

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def in_precision(learner: Learner, precision: str | None) -> Learner:
    """Return the learner whose model computes in a short dtype, the same each time; the learner itself for None.

    The model runs under `torch.autocast`: products of matrices and convolutions take the short dtype, and what needs
    the range or the digits (norms, softmax, sums) float32, by PyTorch's own lists. Parameters and buffers stay as they
    are (float32), and with them gradients, updates and running statistics; predictions are cast to float32 for the
    loss. float16 has no loss scaling here; bfloat16 needs none.

    Raises:
        InvalidArgument: the precision is another word.
        DtypeMismatch: when applied, parameters are float64, which PyTorch does not cast.

    >>> from functrain import losses, nn, optim
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> in_precision(learner, None) is learner
    True
    """
    check_learner(learner)
    if precision is None:
        return learner
    if precision not in DTYPES:
        raise InvalidArgument(f"precision must be 'bfloat16', 'float16' or None, got {precision!r}")
    return keep(
        learner, ("precision", precision), lambda: attrs.evolve(learner, model=_cast(learner.model, DTYPES[precision]))
    )


def _cast(model: Model, dtype: torch.dtype) -> Model:
    def apply(params: Any, buffers: Any, x: Any, *mode: Any) -> tuple[Any, Any]:
        leaves = [leaf for leaf in tree.leaves((params, x)) if isinstance(leaf, Tensor)]
        _check_none_is_double(leaves)
        # Without its cache, which would hold on to casts of parameters that are values here, and differ in each call.
        with torch.autocast(leaves[0].device.type, dtype, cache_enabled=False):
            prediction, after = model.apply(params, buffers, x, *mode)
        return tree.map(_wide, prediction), after

    return attrs.evolve(model, apply=apply)


def _check_none_is_double(leaves: list[Tensor]) -> None:
    if any(leaf.dtype == torch.float64 for leaf in leaves):
        raise DtypeMismatch(
            "precision= computes a model of float32 in a short dtype, and parameters or inputs are float64; cast them "
            "with tree.to(..., torch.float32), or leave precision out"
        )


def _wide(leaf: Any) -> Any:
    return leaf.float() if isinstance(leaf, Tensor) and leaf.dtype in DTYPES.values() else leaf
