"""Steps of which only the sign counts."""

import torch
from torch import Tensor

from functrain.errors import InvalidArgument
from functrain.optim.arithmetic import lerp, scalar_like, sign
from functrain.optim.hypers import check_fixed, decays, finite, nonnegative
from functrain.optim.leaves import per_leaf
from functrain.optim.transform import Transform
from functrain.schedule import Hyper, Number, Schedule, check_hyper


def scale_by_lion(b1: Hyper = 0.9, b2: Hyper = 0.99) -> Transform:
    """Return the transform that steps by the sign of a mean of the gradients.

    u = sign(b1 m + (1 - b1) g), and then m = b2 m + (1 - b2) g. (Chen et al., 2023, https://arxiv.org/abs/2302.06675.)

    Args:
        b1: in [0, 1), the weight of the mean beside the gradient; the hyperparameter "b1".
        b2: in [0, 1), the decay of the mean; the hyperparameter "b2".

    Raises:
        InvalidArgument: a number is out of range.

    >>> piece, params = scale_by_lion(), {"w": torch.zeros(2)}
    >>> piece.update({"w": torch.tensor([3.0, -0.1])}, piece.init(params), params)[0]
    {'w': tensor([ 1., -1.])}
    """

    def formula(now, g: Tensor, p: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        return sign(lerp(m, g, 1 - now.b1)), lerp(m, g, 1 - now.b2)

    return per_leaf("scale_by_lion", formula, decays(b1=b1, b2=b2), ["mean"])


def scale_by_sign() -> Transform:
    """Return the transform that leaves of each element the sign: u = sign(g), and NaN where g is not finite.

    (Bernstein et al., 2018, https://arxiv.org/abs/1802.04434.) Of a complex number it leaves the signs of both parts.

    >>> scale_by_sign().update({"w": torch.tensor([3.0, -0.1])}, (), {"w": torch.zeros(2)})[0]
    {'w': tensor([ 1., -1.])}
    """
    return per_leaf("scale_by_sign", lambda now, g, p: sign(g))


def scale_by_rprop(
    initial: Number = 0.01, shrink: Hyper = 0.5, grow: Hyper = 1.2, least: Hyper = 1e-6, most: Hyper = 50.0
) -> Transform:
    """Return the transform that steps by signs, with a step size for each element.

    Where g has the sign of the g before, the size s grows by the factor `grow`; where it has the other one, s shrinks
    by the factor `shrink` and g counts as 0, also for the next update. u = s sign(g), with s between `least` and
    `most`. (Riedmiller and Braun, 1993, https://doi.org/10.1109/ICNN.1993.298623; the variant of torch.optim.Rprop.)
    It needs gradients of all examples.

    Args:
        initial: the first step size, at least 0.
        shrink: in [0, 1); the hyperparameter "shrink".
        grow: at least 1; the hyperparameter "grow".
        least: the smallest step size, at most `most`; the hyperparameter "least".
        most: the largest step size; the hyperparameter "most".

    Raises:
        InvalidArgument: a number is out of range.

    >>> piece, params = scale_by_rprop(0.1), {"w": torch.zeros(2)}
    >>> _, state = piece.update({"w": torch.tensor([3.0, -0.1])}, piece.init(params), params)
    >>> piece.update({"w": torch.tensor([3.0, 0.1])}, state, params)[0]
    {'w': tensor([0.1200, 0.0000])}
    """
    beginning = check_fixed(initial=initial)["initial"]

    def formula(now, g: Tensor, p: Tensor, before: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        way = sign(g)
        turned, same = way * before < 0, way * before > 0
        size = torch.where(turned, size * now.shrink, torch.where(same, size * now.grow, size))
        size = torch.minimum(torch.maximum(size, scalar_like(g, now.least)), scalar_like(g, now.most))
        way = torch.where(turned, 0.0, way)
        return way * size, way, size

    hypers = decays(shrink=shrink) | nonnegative(least=least, most=most)
    hypers |= finite(grow=check_hyper("grow", grow, minimum=1))
    if not any(isinstance(limit, (Schedule, Tensor)) for limit in (least, most)) and least > most:  # pyright: ignore
        raise InvalidArgument(f"least must be at most most, got least={least!r}, most={most!r}")
    slots = {"sign": torch.zeros_like, "size": lambda p: torch.zeros_like(p) + beginning}
    return per_leaf("scale_by_rprop", formula, hypers, slots)
