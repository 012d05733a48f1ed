"""Mixed precision: the model computes in a short dtype; its parameters, the loss and the updates stay as they are."""

from typing import Any

import attrs
import torch

from functrain import tree
from functrain.errors import InvalidArgument
from functrain.nn import Model
from functrain.train.compiling import kept
from functrain.train.learner import Learner

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def in_precision(learner: Learner, precision: str | None) -> Learner:
    """Return the learner whose model computes in a short dtype, the same each time; the learner itself for None.

    Parameters and floating-point inputs are cast to it at the beginning of each application, so that gradients and
    updates are of the parameters as they are (float32), and predictions are cast back, so that the loss is computed in
    float32. Buffers are cast there and back too, so running statistics have the precision of the short dtype. float16
    has no loss scaling here; bfloat16 needs none.

    Raises:
        InvalidArgument: the precision is another word.

    >>> from functrain import losses, nn, optim
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> in_precision(learner, None) is learner
    True
    """
    if precision is None:
        return learner
    if precision not in DTYPES:
        raise InvalidArgument(f"precision must be 'bfloat16', 'float16' or None, got {precision!r}")
    return kept(
        learner, ("precision", precision), lambda: attrs.evolve(learner, model=_cast(learner.model, DTYPES[precision]))
    )


def _cast(model: Model, dtype: torch.dtype) -> Model:
    def apply(params: Any, buffers: Any, x: Any, *mode: Any) -> tuple[Any, Any]:
        prediction, after = model.apply(tree.to(params, dtype), tree.to(buffers, dtype), tree.to(x, dtype), *mode)
        return tree.map(_wide, prediction), tree.map(_like, after, buffers)

    return attrs.evolve(model, apply=apply)


def _wide(leaf: Any) -> Any:
    return leaf.float() if isinstance(leaf, torch.Tensor) and leaf.dtype in DTYPES.values() else leaf


def _like(leaf: Any, before: Any) -> Any:
    return leaf.to(before.dtype) if isinstance(leaf, torch.Tensor) else leaf
