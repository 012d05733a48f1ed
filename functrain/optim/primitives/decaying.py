"""Weight decay, and which parameters it is for."""

from typing import Any

from torch import Tensor

from functrain.optim.arithmetic import plus
from functrain.optim.hypers import nonnegative
from functrain.optim.leaves import per_leaf
from functrain.optim.transform import Transform
from functrain.optim.wrappers.claiming import Where
from functrain.optim.wrappers.freezing import masked
from functrain.schedule import Hyper


def add_decayed_weights(weight_decay: Hyper, where: Where | None = None) -> Transform:
    """Return the transform that adds a part of the parameters: u = g + weight_decay * p.

    Before a piece that rescales it is the gradient of an L2 penalty; after it, decoupled weight decay (Loshchilov and
    Hutter, 2019, https://arxiv.org/abs/1711.05101).

    Args:
        weight_decay: at least 0; the hyperparameter "weight_decay".
        where: which parameters decay: a shell pattern of dotted paths, several of them, or a predicate of (path, leaf)
            such as `no_biases_or_norms`; None for all.

    Raises:
        InvalidArgument: the weight decay is no finite number, or negative, or `where` is none of these. In `init` and
            `update`, a pattern matches nothing.

    >>> import torch
    >>> add_decayed_weights(0.5).update({"w": torch.tensor([1.0])}, (), {"w": torch.tensor([4.0])})
    ({'w': tensor([3.])}, ())
    """

    def formula(now, g: Tensor, p: Tensor) -> Tensor:
        return plus(g, p, now.weight_decay)

    piece = per_leaf("add_decayed_weights", formula, nonnegative(weight_decay=weight_decay))
    return piece if where is None else masked(where, piece)


def no_biases_or_norms(path: str, leaf: Any) -> bool:
    """Return whether a parameter usually decays: it has two axes at least, and is not called "bias".

    So biases and the scales of normalisations do not, but for those of a layer norm over several axes. For what takes
    patterns or predicates: `add_decayed_weights`, `masked`, `partition`, and the named optimizers.

    >>> import torch
    >>> no_biases_or_norms("0.weight", torch.ones(2, 3)), no_biases_or_norms("0.bias", torch.ones(2))
    (True, False)
    """
    return leaf.dim() > 1 and path.rpartition(".")[2] != "bias"
