"""Averages of the parameters that were passed through, kept beside them."""

from torch import Tensor

from functrain.optim.arithmetic import lerp, plus, times
from functrain.optim.hypers import check_fixed, nonnegative
from functrain.optim.leaves import per_leaf
from functrain.optim.transform import Transform, as_primitive
from functrain.schedule import Hyper, Number


def average_iterates(start: Number = 0) -> Transform:
    """Return the transform that changes nothing and keeps the mean of the parameters after each update from `start` on.

    In the t-th update a = a + (p + u - a) / max(1, t - 1 - start); the state has a as "average". It must be the last
    piece of a chain. (Polyak and Juditsky, 1992, https://doi.org/10.1137/0330046; as torch.optim.ASGD counts.)

    Args:
        start: the updates before the mean begins; until then it is the parameters themselves.

    Raises:
        InvalidArgument: `start` is negative.

    >>> import torch
    >>> piece, params = average_iterates(), {"w": torch.zeros(1)}
    >>> piece.update({"w": torch.tensor([4.0])}, piece.init(params), params)[1]["average"]
    {'w': tensor([4.])}
    """
    beginning = check_fixed(start=start)["start"]

    def once(now) -> dict:
        return {"part": 1 / (now.t - 1 - beginning).clamp(min=1)}

    def formula(now, g: Tensor, p: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        return g, lerp(a, p + g, now.part)

    piece = per_leaf("average_iterates", formula, slots=["average"], counts=True, once=once)
    return as_primitive("average", piece, {"start": beginning})


def scale_by_falling_rate(lr: Hyper, lambd: Hyper = 1e-4, alpha: Hyper = 0.75) -> Transform:
    """Return the transform that steps against the gradient by a rate that falls, with weights that decay by it.

    In the t-th update e = lr / (1 + lambd lr (t - 1))^alpha, and u = -e (g + lambd p). (Bottou, 2010,
    https://doi.org/10.1007/978-3-7908-2604-3_16; as in torch.optim.ASGD.)

    Args:
        lr: at least 0; the hyperparameter "lr".
        lambd: at least 0, the decay; the hyperparameter "lambd".
        alpha: at least 0, the power by which the rate falls; the hyperparameter "alpha".

    Raises:
        InvalidArgument: a number is out of range.

    >>> import torch
    >>> piece, params = scale_by_falling_rate(0.5), {"w": torch.zeros(1)}
    >>> piece.update({"w": torch.tensor([4.0])}, piece.init(params), params)[0]
    {'w': tensor([-2.])}
    """

    def once(now) -> dict:
        return {"rate": now.lr / (1 + now.lambd * now.lr * (now.t - 1)) ** now.alpha}

    def formula(now, g: Tensor, p: Tensor) -> Tensor:
        return times(plus(g, p, now.lambd), -now.rate)

    hypers = nonnegative(lr=lr, lambd=lambd, alpha=alpha)
    return per_leaf("scale_by_falling_rate", formula, hypers, counts=True, once=once)
