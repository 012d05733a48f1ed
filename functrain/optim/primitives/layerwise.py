"""What depends on a whole array: its norm beside that of its parameter, and the mean of each of its rows."""

import torch
from torch import Tensor

from functrain.optim.arithmetic import is_number, length, lerp, plus, root, scalar_like, times, unhide
from functrain.optim.hypers import decays, nonnegative
from functrain.optim.leaves import per_leaf
from functrain.optim.transform import Transform
from functrain.schedule import Hyper


def scale_by_trust_ratio(trust_coefficient: Hyper = 1.0, eps: Hyper = 0.0, most: Hyper | None = None) -> Transform:
    """Return the transform that gives the update of each array the norm of its parameter.

    u = g r with r = trust_coefficient |p| / (|g| + eps), at most `most`; r = 1 where p or g is all zeros. (You et al.,
    2017, https://arxiv.org/abs/1708.03888.) Where an element is NaN or infinite all of its array becomes NaN.

    Args:
        trust_coefficient: at least 0; the hyperparameter "trust_coefficient", unless it is the number 1.
        eps: at least 0; the hyperparameter "trust_eps", unless it is the number 0.
        most: the largest r, at least 0; None for no limit. The hyperparameter "most".

    Raises:
        InvalidArgument: a number is out of range.

    >>> piece, params = scale_by_trust_ratio(), {"w": torch.tensor([0.0, 10.0])}
    >>> piece.update({"w": torch.tensor([3.0, 4.0])}, (), params)[0]
    {'w': tensor([6., 8.])}
    """
    hypers = nonnegative(trust_coefficient=trust_coefficient, eps=eps)
    hypers["trust_eps"] = hypers.pop("eps")
    hypers = {name: hyper for name, hyper in hypers.items() if not is_number(hyper, float(name == "trust_coefficient"))}
    hypers |= {} if most is None else nonnegative(most=most)

    def formula(now, g: Tensor, p: Tensor) -> Tensor:
        there, here = length(p), length(g)
        neither = (there == 0) | (here == 0)
        below = here + scalar_like(here, now.trust_eps) if "trust_eps" in hypers else here
        ratio = there / torch.where(neither, 1.0, below)
        if "trust_coefficient" in hypers:
            ratio = times(ratio, now.trust_coefficient)
        if most is not None:
            ratio = torch.minimum(ratio, scalar_like(ratio, now.most))
        return g * torch.where(here.isfinite(), torch.where(neither, 1.0, ratio), torch.nan)

    return per_leaf("scale_by_trust_ratio", formula, hypers)


def scale_by_novograd(b2: Hyper = 0.25, eps: Hyper = 1e-6) -> Transform:
    """Return the transform that divides each array by the root of a mean of its squared norms.

    v = b2 v + (1 - b2) |g|^2, in the first update |g|^2, and u = g / (sqrt(v) + eps). One number is kept for an array.
    (Ginsburg et al., 2019, https://arxiv.org/abs/1905.11286; the momentum that follows is `trace`.)

    Args:
        b2: in [0, 1), the decay of the mean of squared norms; the hyperparameter "b2".
        eps: at least 0, keeps the divisor away from zero; the hyperparameter "eps".

    Raises:
        InvalidArgument: a number is out of range.

    >>> piece, params = scale_by_novograd(), {"w": torch.zeros(2)}
    >>> piece.update({"w": torch.tensor([3.0, 4.0])}, piece.init(params), params)
    ({'w': tensor([0.6000, 0.8000])}, {'square': {'w': tensor(25.)}, 'count': tensor(1)})
    """

    def once(now) -> dict:
        return {"later": now.t > 1}

    def formula(now, g: Tensor, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        square = (g * g).sum()
        v = torch.where(now.later, lerp(v, square.expand_as(v), 1 - now.b2), square)
        return unhide(g / (root(v) + now.eps), v), v

    hypers = decays(b2=b2) | nonnegative(eps=eps)
    return per_leaf("scale_by_novograd", formula, hypers, {"square": lambda p: p.new_zeros(())}, counts=True, once=once)


def centralize() -> Transform:
    """Return the transform that subtracts its mean from each row: u = g minus the mean over all axes but the first.

    A row is what one output is made of, in PyTorch's layout; what has fewer than two axes stays as it is. (Yong et al.,
    2020, https://arxiv.org/abs/2004.01461.)

    Raises:
        DtypeMismatch: in `init`, a parameter is complex.

    >>> piece, params = centralize(), {"w": torch.zeros(1, 2), "b": torch.zeros(1)}
    >>> piece.update({"w": torch.tensor([[1.0, 3.0]]), "b": torch.tensor([5.0])}, (), params)[0]
    {'w': tensor([[-1.,  1.]]), 'b': tensor([5.])}
    """

    def formula(now, g: Tensor, p: Tensor) -> Tensor:
        if g.dim() < 2 or g.numel() == 0:
            return g
        return plus(g, g.mean(list(range(1, g.dim())), keepdim=True), -1)

    return per_leaf("centralize", formula, real=True)
