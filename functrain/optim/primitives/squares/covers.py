"""Sums of squares of which only a bound for each axis is kept: SM3."""

from functools import reduce

import torch
from torch import Tensor

from functrain.optim.arithmetic import root, unhide
from functrain.optim.hypers import nonnegative
from functrain.optim.leaves import per_leaf
from functrain.optim.transform import Transform
from functrain.schedule import Hyper


def scale_by_sm3(eps: Hyper = 1e-8) -> Transform:
    """Return the transform that divides by the root of a bound of the sum of all squares.

    For each index of each axis it keeps the largest bound of the elements there, so n + m numbers for a matrix (n, m).
    An element's bound is v = the least of those that it has, one an axis, + g^2; u = g / sqrt(v + eps). (Anil et al.,
    2019, https://arxiv.org/abs/1901.11150; as in optax.)

    Args:
        eps: at least 0, keeps the divisor away from zero; the hyperparameter "eps".

    Raises:
        InvalidArgument: eps is out of range.
        DtypeMismatch: in `init`, a parameter is complex.

    >>> piece, params = scale_by_sm3(), {"w": torch.zeros(2, 2)}
    >>> updates, state = piece.update({"w": torch.tensor([[3.0, 1.0], [2.0, 0.0]])}, piece.init(params), params)
    >>> updates["w"], state["bounds"]["w"]
    (tensor([[1., 1.],
            [1., 0.]]), tensor([9., 4., 9., 1.]))
    """

    def formula(now, g: Tensor, p: Tensor, bounds: Tensor) -> tuple[Tensor, Tensor]:
        if g.numel() == 0:
            return g, bounds
        axes = range(g.dim())
        each = [b.reshape([-1 if i == axis else 1 for i in axes]) for axis, b in enumerate(bounds.split(list(g.shape)))]
        v = reduce(torch.minimum, each) + g * g
        return unhide(g / root(v + now.eps), v), torch.cat([_largest(v, axis) for axis in axes])

    return per_leaf(
        "scale_by_sm3", formula, nonnegative(eps=eps), {"bounds": lambda p: p.new_zeros(sum(p.shape))}, real=True
    )


def _largest(v: Tensor, axis: int) -> Tensor:
    others = [other for other in range(v.dim()) if other != axis]
    return v.amax(others) if others else v
