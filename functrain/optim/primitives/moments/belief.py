"""Adam with other squares: those of what was not expected, and those that change by little at a time."""

import torch
from torch import Tensor

from functrain.optim.arithmetic import lerp, mean_square, plus, root, unhide
from functrain.optim.hypers import check_fixed, decays, nonnegative
from functrain.optim.leaves import per_leaf
from functrain.optim.transform import Transform
from functrain.schedule import Hyper, Number


def scale_by_belief(b1: Hyper = 0.9, b2: Hyper = 0.999, eps: Hyper = 1e-16, eps_root: Hyper = 1e-16) -> Transform:
    """Return the transform that divides a mean of the gradients by how far they usually are from it.

    m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) (g - m)^2 + eps_root,  and in the t-th update
    u = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps). (Zhuang et al., 2020, https://arxiv.org/abs/2010.07468.)

    Args:
        b1: in [0, 1), the decay of the mean; the hyperparameter "b1".
        b2: in [0, 1), the decay of the mean square; the hyperparameter "b2".
        eps: at least 0, keeps the divisor away from zero; the hyperparameter "eps".
        eps_root: at least 0, added to v in each update; the hyperparameter "eps_root".

    Raises:
        InvalidArgument: a number is out of range.

    >>> piece, params = scale_by_belief(), {"w": torch.zeros(2)}
    >>> piece.update({"w": torch.tensor([3.0, -0.1])}, piece.init(params), params)[0]
    {'w': tensor([ 1.1111, -1.1111])}
    """

    def formula(now, g: Tensor, p: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        m = lerp(m, g, 1 - now.b1)
        v = mean_square(v, g - m, now.b2) + now.eps_root
        return unhide(m * now.of_mean / (root(v * now.of_square) + now.eps), v), m, v

    hypers = decays(b1=b1, b2=b2) | nonnegative(eps=eps, eps_root=eps_root)
    return per_leaf("scale_by_belief", formula, hypers, ["mean", "square"], counts=True, once=_corrections)


def _corrections(now) -> dict:
    return {"of_mean": 1 / (1 - now.b1**now.t), "of_square": 1 / (1 - now.b2**now.t)}


def scale_by_yogi(b1: Hyper = 0.9, b2: Hyper = 0.999, eps: Hyper = 1e-3, initial: Number = 1e-6) -> Transform:
    """Return the transform of Adam whose squares change by what g^2 allows, and not by how far they are from it.

    m = b1 m + (1 - b1) g,  v = v - (1 - b2) sign(v - g^2) g^2,  both of which begin at `initial`; and in the t-th
    update u = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps). (Zaheer et al., 2018,
    https://papers.nips.cc/paper/8186-adaptive-methods-for-nonconvex-optimization; as in optax.)

    Args:
        b1: in [0, 1), the decay of the mean; the hyperparameter "b1".
        b2: in [0, 1), how slowly the squares change; the hyperparameter "b2".
        eps: at least 0, keeps the divisor away from zero; the hyperparameter "eps".
        initial: at least 0, where the mean and the squares begin.

    Raises:
        InvalidArgument: a number is out of range.

    >>> piece, params = scale_by_yogi(), {"w": torch.zeros(2)}
    >>> piece.update({"w": torch.tensor([3.0, -0.1])}, piece.init(params), params)[0]
    {'w': tensor([ 0.9996, -0.9444])}
    """
    beginning = check_fixed(initial=initial)["initial"]

    def formula(now, g: Tensor, p: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        m, squares = lerp(m, g, 1 - now.b1), g * g
        v = plus(v, (v - squares).sign() * squares, now.b2 - 1)
        return unhide(m * now.of_mean / (root(v * now.of_square) + now.eps), v), m, v

    def begin(p: Tensor) -> Tensor:
        return torch.zeros_like(p) + beginning

    hypers = decays(b1=b1, b2=b2) | nonnegative(eps=eps)
    return per_leaf("scale_by_yogi", formula, hypers, {"mean": begin, "square": begin}, counts=True, once=_corrections)
