"""A mean of the last gradients and one of very many, together: AdEMAMix."""

from torch import Tensor

from functrain.optim.arithmetic import lerp, mean_square, plus, root, unhide
from functrain.optim.hypers import decays, nonnegative
from functrain.optim.leaves import per_leaf
from functrain.optim.transform import Transform
from functrain.schedule import Hyper


def scale_by_ademamix(
    b1: Hyper = 0.9, b2: Hyper = 0.999, b3: Hyper = 0.9999, alpha: Hyper = 5.0, eps: Hyper = 1e-8
) -> Transform:
    """Return the transform of Adam with a second mean of the gradients, which forgets slowly.

    m = b1 m + (1 - b1) g,  s = b3 s + (1 - b3) g,  v = b2 v + (1 - b2) g^2,  and in the t-th update
    u = (m / (1 - b1^t) + alpha s) / (sqrt(v / (1 - b2^t)) + eps). The bias of s stays, so that it grows slowly.
    (Pagliardini et al., 2024, https://arxiv.org/abs/2409.03137, where alpha and b3 rise in the beginning: give
    schedules.)

    Args:
        b1: in [0, 1), the decay of the mean; the hyperparameter "b1".
        b2: in [0, 1), the decay of the mean square; the hyperparameter "b2".
        b3: in [0, 1), the decay of the slow mean; the hyperparameter "b3".
        alpha: at least 0, the weight of the slow mean; the hyperparameter "alpha".
        eps: at least 0, keeps the divisor away from zero; the hyperparameter "eps".

    Raises:
        InvalidArgument: a number is out of range.

    >>> import torch
    >>> piece, params = scale_by_ademamix(b3=0.99), {"w": torch.zeros(2)}
    >>> piece.update({"w": torch.tensor([3.0, -0.1])}, piece.init(params), params)[0]
    {'w': tensor([ 1.0500, -1.0500])}
    """

    def once(now) -> dict:
        return {"of_mean": 1 / (1 - now.b1**now.t), "of_root": 1 / (1 - now.b2**now.t).sqrt()}

    def formula(now, g: Tensor, p: Tensor, m: Tensor, s: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        m, s, v = lerp(m, g, 1 - now.b1), lerp(s, g, 1 - now.b3), mean_square(v, g, now.b2)
        ahead = plus(m * now.of_mean, s, now.alpha)
        return unhide(ahead / (root(v) * now.of_root + now.eps), v), m, s, v

    hypers = decays(b1=b1, b2=b2, b3=b3) | nonnegative(alpha=alpha, eps=eps)
    return per_leaf("scale_by_ademamix", formula, hypers, ["mean", "slow", "square"], counts=True, once=once)
