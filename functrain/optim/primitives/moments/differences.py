"""What a gradient says beside the one before it: Adan, and MARS's reduction of variance."""

import torch
from torch import Tensor

from functrain.optim.arithmetic import lerp, mean_square, plus, root, unhide
from functrain.optim.hypers import decays, nonnegative
from functrain.optim.leaves import per_leaf
from functrain.optim.transform import Transform
from functrain.schedule import Hyper


def scale_by_adan(b1: Hyper = 0.98, b2: Hyper = 0.92, b3: Hyper = 0.99, eps: Hyper = 1e-8) -> Transform:
    """Return the transform of Nesterov's momentum by differences of gradients, divided by their usual size.

    With d = g minus the g before, 0 in the first update: m = b1 m + (1 - b1) g,  s = b2 s + (1 - b2) d,
    v = b3 v + (1 - b3) (g + b2 d)^2, and in the t-th update
    u = (m / (1 - b1^t) + b2 s / (1 - b2^t)) / (sqrt(v / (1 - b3^t)) + eps). (Xie et al., 2022,
    https://arxiv.org/abs/2208.06677, as in the authors' code; optax has 1 - b2 where they have b2.)

    Args:
        b1: in [0, 1), the decay of the mean of gradients; the hyperparameter "b1".
        b2: in [0, 1), the decay of the mean of differences, and their weight; the hyperparameter "b2".
        b3: in [0, 1), the decay of the mean square; the hyperparameter "b3".
        eps: at least 0, keeps the divisor away from zero; the hyperparameter "eps".

    Raises:
        InvalidArgument: a number is out of range.

    >>> piece, params = scale_by_adan(), {"w": torch.zeros(2)}
    >>> piece.update({"w": torch.tensor([3.0, -0.1])}, piece.init(params), params)[0]
    {'w': tensor([ 1., -1.])}
    """

    def once(now) -> dict:
        return {
            "later": now.t > 1,
            "of_mean": 1 / (1 - now.b1**now.t),
            "of_difference": now.b2 / (1 - now.b2**now.t),
            "of_root": 1 / (1 - now.b3**now.t).sqrt(),
        }

    def formula(now, g: Tensor, p: Tensor, m: Tensor, s: Tensor, v: Tensor, before: Tensor) -> tuple[Tensor, ...]:
        d = torch.where(now.later, g - before, 0.0)
        m, s, v = lerp(m, g, 1 - now.b1), lerp(s, d, 1 - now.b2), mean_square(v, plus(g, d, now.b2), now.b3)
        ahead = m * now.of_mean + s * now.of_difference
        return unhide(ahead / (root(v) * now.of_root + now.eps), v), m, s, v, g

    hypers = decays(b1=b1, b2=b2, b3=b3) | nonnegative(eps=eps)
    slots = ["mean", "difference", "square", "before"]
    return per_leaf("scale_by_adan", formula, hypers, slots, counts=True, once=once)


def reduce_variance(gamma: Hyper = 0.025, momentum: Hyper = 0.95) -> Transform:
    """Return the transform that adds a part of how the gradient has changed: u = g + c (g - the g before).

    c = gamma momentum / (1 - momentum); the g before the first is 0. Followed by a mean with this momentum it reduces
    the variance of gradients. This is the approximation of MARS, which takes the gradient before from another batch.
    (Yuan et al., 2024, https://arxiv.org/abs/2411.10438.)

    Args:
        gamma: at least 0, how much is corrected; the hyperparameter "gamma".
        momentum: in [0, 1), of the mean that follows; the hyperparameter "momentum".

    Raises:
        InvalidArgument: a number is out of range.

    >>> piece, params = reduce_variance(gamma=0.5, momentum=0.5), {"w": torch.zeros(1)}
    >>> _, state = piece.update({"w": torch.tensor([4.0])}, piece.init(params), params)
    >>> piece.update({"w": torch.tensor([6.0])}, state, params)[0]
    {'w': tensor([7.])}
    """

    def once(now) -> dict:
        return {"part": now.gamma * now.momentum / (1 - now.momentum)}

    def formula(now, g: Tensor, p: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        return plus(g, g - before, now.part), g

    hypers = nonnegative(gamma=gamma) | decays(momentum=momentum)
    return per_leaf("reduce_variance", formula, hypers, ["before"], once=once)
