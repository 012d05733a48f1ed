"""The arithmetic of optimizers on one leaf, with factors that are numbers or scalar tensors."""

from collections.abc import Callable

import torch
from torch import Tensor

from functrain.errors import TreeMismatch
from functrain.schedule import Hyper, Number


def is_zero(hyper: Hyper) -> bool:
    """Return whether a hyperparameter is the number 0 and stays so, which makes what it scales void.

    >>> from functrain import schedule
    >>> is_zero(0.0), is_zero(schedule.lin(0, 1))
    (True, False)
    """
    return isinstance(hyper, (int, float)) and hyper == 0


def like(factor: Number, leaf: Tensor) -> Number:
    """Return a factor that leaves the leaf's dtype as it is: a float64 scalar promotes no array, but it does a scalar.

    >>> (torch.tensor(1.0) * like(torch.tensor(0.1, dtype=torch.float64), torch.tensor(1.0))).dtype
    torch.float32
    """
    return factor.to(leaf.dtype) if isinstance(factor, Tensor) and leaf.dim() == 0 else factor


def times(a: Tensor, factor: Number) -> Tensor:
    """Return a * factor in the dtype of a.

    >>> times(torch.ones(2), 0.5)
    tensor([0.5000, 0.5000])
    """
    return a * (like(factor, a) if isinstance(factor, Tensor) else factor)


def plus(a: Tensor, b: Tensor, factor: Number) -> Tensor:
    """Return a + factor * b, in one operation when the factor is a number.

    >>> plus(torch.ones(2), torch.ones(2), 0.5)
    tensor([1.5000, 1.5000])
    """
    # No addcmul for tensors: under vmap its result takes the dtype of the float64 factor.
    return a + times(b, factor) if isinstance(factor, Tensor) else torch.add(a, b, alpha=factor)


def plus_square(a: Tensor, b: Tensor, factor: Number) -> Tensor:
    """Return a + factor * b^2, in one operation when the factor is a number.

    >>> plus_square(torch.ones(2), torch.full((2,), 2.0), 0.5)
    tensor([3., 3.])
    """
    return a + times(b * b, factor) if isinstance(factor, Tensor) else torch.addcmul(a, b, b, value=factor)


def lerp(a: Tensor, b: Tensor, part: Number) -> Tensor:
    """Return a + part * (b - a), in one operation when the part is a number.

    >>> lerp(torch.zeros(2), torch.ones(2), 0.25)
    tensor([0.2500, 0.2500])
    """
    return a + times(b - a, part) if isinstance(part, Tensor) else torch.lerp(a, b, part)


def moving(factor: Number = 1) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function (param, update) -> param + factor * update, in the parameter's dtype.

    Raises:
        TreeMismatch: when called with two shapes; what broadcasts would give wrong parameters silently.

    >>> moving(-0.5)(torch.ones(2), torch.ones(2))
    tensor([0.5000, 0.5000])
    """

    def move(param: Tensor, update: Tensor) -> Tensor:
        if param.shape != getattr(update, "shape", None):
            raise TreeMismatch("the updates must have the shapes of the parameters")  # by path: `check_form`
        moved = plus(param, update, factor)
        return moved if moved.dtype == param.dtype else moved.to(param.dtype)

    return move
