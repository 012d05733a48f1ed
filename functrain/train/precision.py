"""Mixed precision: the model in autocast to a short dtype; parameters, loss and updates stay as they are."""

from typing import Any

import attrs
import torch

from functrain import tree
from functrain.errors import InvalidArgument
from functrain.nn import Model
from functrain.train.compiling import kept
from functrain.train.learner import Learner

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def in_precision(learner: Learner, precision: str | None, device: torch.device) -> Learner:
    """Return the learner whose model runs in autocast to a dtype, the same each time; the learner itself for None.

    Matrix products and convolutions run in the short dtype, what needs more in float32 (PyTorch's own lists decide),
    and predictions are float32 again. float16 has no loss scaling here: bfloat16 needs none.

    Raises:
        InvalidArgument: the precision is another word.

    >>> from functrain import losses, nn, optim
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> in_precision(learner, None, torch.device("cpu")) is learner
    True
    """
    if precision is None:
        return learner
    if precision not in DTYPES:
        raise InvalidArgument(f"precision must be 'bfloat16', 'float16' or None, got {precision!r}")
    key = ("precision", precision, device.type)
    return kept(learner, key, lambda: attrs.evolve(learner, model=_cast(learner.model, DTYPES[precision], device.type)))


def _cast(model: Model, dtype: torch.dtype, device: str) -> Model:
    def apply(params: Any, buffers: Any, x: Any, *mode: Any) -> tuple[Any, Any]:
        # Without its cache: the cast of a parameter would be that of another step.
        with torch.autocast(device, dtype, cache_enabled=False):
            prediction, after = model.apply(params, buffers, x, *mode)
        return tree.map(_wide, prediction), tree.map(_like, after, buffers)

    return attrs.evolve(model, apply=apply)


def _wide(leaf: Any) -> Any:
    return leaf.float() if isinstance(leaf, torch.Tensor) and leaf.dtype in DTYPES.values() else leaf


def _like(leaf: Any, before: Any) -> Any:
    return leaf.to(before.dtype) if isinstance(leaf, torch.Tensor) else leaf
