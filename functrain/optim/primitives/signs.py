"""Steps of which only the sign counts."""

from torch import Tensor

from functrain.optim.arithmetic import lerp, sign
from functrain.optim.hypers import decays
from functrain.optim.leaves import per_leaf
from functrain.optim.transform import Transform
from functrain.schedule import Hyper


def scale_by_lion(b1: Hyper = 0.9, b2: Hyper = 0.99) -> Transform:
    """Return the transform that steps by the sign of a mean of the gradients.

    u = sign(b1 m + (1 - b1) g), and then m = b2 m + (1 - b2) g. (Chen et al., 2023, https://arxiv.org/abs/2302.06675.)

    Args:
        b1: in [0, 1), the weight of the mean beside the gradient; the hyperparameter "b1".
        b2: in [0, 1), the decay of the mean; the hyperparameter "b2".

    Raises:
        InvalidArgument: a number is out of range.

    >>> import torch
    >>> piece, params = scale_by_lion(), {"w": torch.zeros(2)}
    >>> piece.update({"w": torch.tensor([3.0, -0.1])}, piece.init(params), params)[0]
    {'w': tensor([ 1., -1.])}
    """

    def formula(now, g: Tensor, p: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        return sign(lerp(m, g, 1 - now.b1)), lerp(m, g, 1 - now.b2)

    return per_leaf("scale_by_lion", formula, decays(b1=b1, b2=b2), ["mean"])
