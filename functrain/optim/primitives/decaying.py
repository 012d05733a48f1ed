"""Weight decay."""

from torch import Tensor

from functrain.optim.arithmetic import plus
from functrain.optim.hypers import nonnegative
from functrain.optim.leaves import per_leaf
from functrain.optim.transform import Transform, as_primitive
from functrain.schedule import Hyper


def add_decayed_weights(weight_decay: Hyper) -> Transform:
    """Return the transform that adds a part of the parameters: u = g + weight_decay * p.

    Before a piece that rescales it is the gradient of an L2 penalty; after it, decoupled weight decay (Loshchilov and
    Hutter, 2019, https://arxiv.org/abs/1711.05101).

    Args:
        weight_decay: at least 0; the hyperparameter "weight_decay".

    Raises:
        InvalidArgument: the weight decay is no finite number, or negative.

    >>> import torch
    >>> add_decayed_weights(0.5).update({"w": torch.tensor([1.0])}, (), {"w": torch.tensor([4.0])})
    ({'w': tensor([3.])}, ())
    """

    def formula(now, g: Tensor, p: Tensor) -> Tensor:
        return plus(g, p, now.weight_decay)

    hypers = nonnegative(weight_decay=weight_decay)
    return as_primitive("decay", per_leaf("add_decayed_weights", formula, hypers), hypers)
