"""Steps as long as the loss is high: Polyak's rule."""

from typing import Any

import torch
from torch import Tensor

from functrain import schedule, tree
from functrain.optim.context import Context
from functrain.optim.hypers import finite, nonnegative
from functrain.optim.primitives.scaling import scale_leaves
from functrain.optim.transform import Transform, stateless
from functrain.schedule import Hyper


def scale_by_polyak(most: Hyper = 1.0, lowest: Hyper = 0.0, eps: Hyper = 0.0, only_down: bool = False) -> Transform:
    """Return the transform that scales by the height of the loss over the square of the gradient.

    With the loss f of this batch, u = g min(most, (f - lowest) / (|g|^2 + eps)), |g| the norm of all leaves together,
    and u = 0 where that is 0. It needs the loss. (Polyak, 1987, Introduction to optimization; Loizou et al., 2021,
    https://arxiv.org/abs/2002.10542.)

    Args:
        most: at least 0, the largest factor; the hyperparameter "most".
        lowest: the lowest loss that a batch can have, or an estimate of it; the hyperparameter "lowest".
        eps: at least 0, keeps the divisor away from zero; the hyperparameter "eps".
        only_down: whether a loss below `lowest` makes no step; else it makes one uphill.

    Raises:
        InvalidArgument: a number is out of range. In `update`, the context has no loss.

    >>> from functrain import optim
    >>> piece, params = scale_by_polyak(), {"w": torch.tensor([3.0])}
    >>> piece.update({"w": torch.tensor([6.0])}, (), params, optim.Context(loss=9.0))[0]  # of w^2
    {'w': tensor([1.5000])}
    """
    hypers = nonnegative(most=most, eps=eps) | finite(lowest=lowest)

    def f(updates: Any, params: Any, context: Context) -> Any:
        now = {name: schedule.value(hyper, context) for name, hyper in hypers.items()}
        square = squared_norm(updates, params)
        height = torch.as_tensor(context.loss, device=square.device).double() - now["lowest"]
        height = height.clamp(min=0) if only_down else height
        below = square + now["eps"]
        some = below > 0
        factor = torch.minimum(height / torch.where(some, below, 1.0), torch.zeros_like(square) + now["most"])
        # A norm that is NaN is neither 0 nor hidden.
        return scale_leaves(updates, torch.where(some | below.isnan(), factor + 0 * below, 0.0))

    return stateless(f, hypers, needs=("loss",), label="scale_by_polyak")


def squared_norm(updates: Any, params: Any) -> Tensor:
    """Return the sum of the squares of all elements, a float64 scalar on the device of the parameters.

    >>> squared_norm({"w": torch.tensor([3.0, 4.0])}, {"w": torch.zeros(2)})
    tensor(25., dtype=torch.float64)
    """
    return dot(updates, updates, params)


def dot(a: Any, b: Any, params: Any) -> Tensor:
    """Return the product of two trees as one vector each, a float64 scalar; a complex number is two real ones.

    >>> dot({"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([1.0, 0.5])}, {})
    tensor(5., dtype=torch.float64)
    """
    parts = tree.leaves(tree.map(_product, a, b))
    device = next((leaf.device for leaf in tree.leaves(params)), None)
    return sum(parts, torch.zeros((), dtype=torch.float64, device=device))


def _product(a: Tensor, b: Tensor) -> Tensor:
    wide = torch.complex128 if a.is_complex() else torch.float64
    return (a.conj().to(wide) * b.to(wide)).real.sum()
