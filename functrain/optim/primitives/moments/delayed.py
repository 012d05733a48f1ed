"""Adam that divides by the squares of the gradients before: ADOPT."""

import torch
from torch import Tensor

from functrain.optim.arithmetic import lerp, mean_square, root, scalar_like, unhide
from functrain.optim.hypers import decays, nonnegative
from functrain.optim.leaves import per_leaf
from functrain.optim.transform import Transform
from functrain.schedule import Hyper


def scale_by_adopt(b1: Hyper = 0.9, b2: Hyper = 0.9999, eps: Hyper = 1e-6, clip: bool = True) -> Transform:
    """Return the transform that averages gradients, each divided by the root of the mean square before it.

    c = g / max(sqrt(v), eps), with `clip` kept within -(t - 1)^(1/4) and (t - 1)^(1/4) in the t-th update;
    m = b1 m + (1 - b1) c, u = m, and then v = b2 v + (1 - b2) g^2. In the first update v = g^2, and u = m = 0.
    (Taniguchi et al., 2024, https://arxiv.org/abs/2411.02853.)

    Args:
        b1: in [0, 1), the decay of the mean; the hyperparameter "b1".
        b2: in [0, 1), the decay of the mean square; the hyperparameter "b2".
        eps: at least 0, the least divisor; the hyperparameter "eps".
        clip: whether what is divided is kept within limits, which grow.

    Raises:
        InvalidArgument: a number is out of range.

    >>> piece, params, gradients = scale_by_adopt(), {"w": torch.zeros(2)}, {"w": torch.tensor([3.0, -0.1])}
    >>> first, state = piece.update(gradients, piece.init(params), params)
    >>> first, piece.update(gradients, state, params)[0]
    ({'w': tensor([0., 0.])}, {'w': tensor([ 0.1000, -0.1000])})
    """

    def once(now) -> dict:
        return {"later": now.t > 1, "limit": (now.t - 1) ** 0.25}

    def formula(now, g: Tensor, p: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        c = unhide(g / torch.maximum(root(v), scalar_like(g, now.eps)), v)
        if clip:
            limit = scalar_like(g, now.limit)
            c = unhide(torch.minimum(torch.maximum(c, -limit), limit), g)
        m = torch.where(now.later, lerp(m, c, 1 - now.b1), m)
        return m, m, torch.where(now.later, mean_square(v, g, now.b2), g * g)

    hypers = decays(b1=b1, b2=b2) | nonnegative(eps=eps)
    return per_leaf("scale_by_adopt", formula, hypers, ["mean", "square"], counts=True, once=once)
