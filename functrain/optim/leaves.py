"""The arithmetic of optimizers on one leaf, with factors that are numbers or scalar tensors."""

from collections.abc import Callable

import torch
from torch import Tensor

from functrain.dispatch_state import is_transformed
from functrain.errors import TreeMismatch
from functrain.schedule import Hyper, Number


def is_zero(hyper: Hyper) -> bool:
    """Return whether a hyperparameter is the number 0 and stays so, which makes what it scales void.

    >>> from functrain import schedule
    >>> is_zero(0.0), is_zero(schedule.linear(0, 1))
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


def wide_zeros(leaf: Tensor) -> Tensor:
    """Return zeros shaped like a leaf to sum in: in float32 at least, as sums in a short dtype lose what is small.

    >>> wide_zeros(torch.ones(2, dtype=torch.float16))
    tensor([0., 0.])
    """
    return torch.zeros_like(leaf, dtype=torch.promote_types(leaf.dtype, torch.float32))


def by_parts(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function of leaves that takes a complex number as two real ones, as PyTorch's optimizers do.

    >>> by_parts(torch.abs)(torch.tensor([-3.0 + 4.0j]))
    tensor([3.+4.j])
    """

    def of_leaves(*leaves: Tensor) -> Tensor:
        if not leaves[0].is_complex():
            return f(*leaves)
        return torch.view_as_complex(f(*(torch.view_as_real(leaf.resolve_conj()) for leaf in leaves)).contiguous())

    return of_leaves


def root(a: Tensor) -> Tensor:
    """Return the square root, with the derivative 0 at 0: where all gradients were 0, an infinite one times 0 is NaN.

    >>> torch.func.grad(lambda g: root(g * g))(torch.tensor(0.0))
    tensor(0.)
    """
    if not (a.requires_grad or is_transformed()):
        return a.sqrt()
    positive = a > 0
    return torch.where(positive, torch.where(positive, a, 1.0).sqrt(), a.detach())


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
