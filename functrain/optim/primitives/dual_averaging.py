"""Steps from where training began, by the sum of all gradients: MADGRAD."""

import torch
from torch import Tensor

from functrain.optim.arithmetic import cube_root, plus, plus_square, times, unhide
from functrain.optim.hypers import decays, nonnegative
from functrain.optim.leaves import per_leaf
from functrain.optim.transform import Transform
from functrain.schedule import Hyper


def scale_by_madgrad(lr: Hyper = 1e-2, momentum: Hyper = 0.9, eps: Hyper = 1e-6) -> Transform:
    """Return the transform that goes towards a point that all gradients so far say, seen from the first parameters.

    With x the parameters at `init` and c = (lr + eps) sqrt(t) in the t-th update: s = s + c g,  v = v + c g^2,
    z = x - s / (v^(1/3) + eps), and u = (1 - momentum) (z - p), which is added as it is: no learning rate follows.
    (Defazio and Jelassi, 2021, https://arxiv.org/abs/2101.11075; as in the authors' code.)

    Args:
        lr: at least 0; the hyperparameter "lr".
        momentum: in [0, 1), how much of the way is left; the hyperparameter "momentum".
        eps: at least 0, keeps the divisor away from zero; the hyperparameter "eps".

    Raises:
        InvalidArgument: a number is out of range.

    >>> piece, params = scale_by_madgrad(lr=1.0, momentum=0.0), {"w": torch.zeros(2)}
    >>> piece.update({"w": torch.tensor([8.0, -1.0])}, piece.init(params), params)[0]
    {'w': tensor([-2.0000,  1.0000])}
    """

    def once(now) -> dict:
        return {"weight": (now.lr + now.eps) * now.t.sqrt()}

    def formula(now, g: Tensor, p: Tensor, s: Tensor, v: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        s, v = plus(s, g, now.weight), plus_square(v, g, now.weight)
        goal = x - unhide(s / (cube_root(v) + now.eps), v)
        return times(goal - p, 1 - now.momentum), s, v, x

    hypers = nonnegative(lr=lr, eps=eps) | decays(momentum=momentum)
    slots = {"sum": torch.zeros_like, "squares": torch.zeros_like, "first": torch.clone}
    return per_leaf("scale_by_madgrad", formula, hypers, slots, counts=True, once=once)
