"""The arithmetic of formulas of one array, with factors that are numbers or scalar tensors, and derivatives at zero."""

import torch
from torch import Tensor

from functrain.dispatch_state import is_transformed
from functrain.errors import DtypeMismatch, TreeMismatch
from functrain.schedule import Hyper, Number


def is_zero(hyper: Hyper) -> bool:
    """Return whether a hyperparameter is the number 0 and stays so, which makes what it scales void.

    >>> from functrain import schedule
    >>> is_zero(0.0), is_zero(schedule.linear(0, 1))
    (True, False)
    """
    return is_number(hyper, 0)


def is_number(hyper: Hyper, number: float) -> bool:
    """Return whether a hyperparameter is a certain number and stays so.

    >>> is_number(1, 1.0), is_number(torch.tensor(1.0), 1.0)
    (True, False)
    """
    return isinstance(hyper, (int, float)) and hyper == number


def times(a: Tensor, factor: Number) -> Tensor:
    """Return a * factor in the dtype of a.

    >>> times(torch.ones(2), 0.5)
    tensor([0.5000, 0.5000])
    """
    # A float64 scalar promotes no array, but it does promote a scalar.
    return a * (factor.to(a.dtype) if isinstance(factor, Tensor) and a.dim() == 0 else factor)


def plus(a: Tensor, b: Tensor, factor: Number) -> Tensor:
    """Return a + factor * b, in one operation when the factor is a number.

    A b of a shorter dtype is widened first, as that operation does, so that its product does not overflow.

    >>> plus(torch.ones(2), torch.ones(2), 0.5)
    tensor([1.5000, 1.5000])
    """
    # No addcmul for tensors: under vmap its result takes the dtype of the float64 factor.
    if not isinstance(factor, Tensor):
        return torch.add(a, b, alpha=factor)
    return a + times(b if b.dtype is a.dtype else b.to(torch.promote_types(a.dtype, b.dtype)), factor)


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


def mean_square(v: Tensor, g: Tensor, decay: Number) -> Tensor:
    """Return decay * v + (1 - decay) * g^2, the decaying mean of squares.

    >>> mean_square(torch.ones(2), torch.full((2,), 3.0), 0.5)
    tensor([5., 5.])
    """
    return plus_square(times(v, decay), g, 1 - decay)


def root(a: Tensor) -> Tensor:
    """Return the square root, with the derivative 0 at 0: where all gradients were 0, an infinite one times 0 is NaN.

    >>> torch.func.grad(lambda g: root(g * g))(torch.tensor(0.0))
    tensor(0.)
    """
    if not (a.requires_grad or is_transformed()):
        return a.sqrt()
    positive = a > 0
    return torch.where(positive, torch.where(positive, a, 1.0).sqrt(), a.detach())


def cube_root(a: Tensor) -> Tensor:
    """Return the cube root of what is not negative, with the derivative 0 at 0, as `root` has it.

    >>> cube_root(torch.tensor([0.0, 8.0]))
    tensor([0., 2.])
    """
    positive = a > 0
    return torch.where(positive, torch.where(positive, a, 1.0) ** (1 / 3), a.detach())


def unhide(u: Tensor, v: Tensor) -> Tensor:
    """Return u, and NaN where v is not finite: divided by a v that overflowed, u would be 0 and hide it for ever.

    >>> unhide(torch.zeros(2), torch.tensor([1.0, float("inf")]))
    tensor([0., nan])
    """
    return plus(u, v, 0)


def sign(a: Tensor) -> Tensor:
    """Return the signs, and NaN where a is not finite, which the sign of an infinity would hide.

    >>> sign(torch.tensor([-3.0, 0.0, float("inf")]))
    tensor([-1.,  0., nan])
    """
    return unhide(a.sign(), a)


def scalar_like(a: Tensor, value: Number) -> Tensor:
    """Return a number as a scalar tensor of the dtype and device of a.

    >>> scalar_like(torch.ones(2), 0.5)
    tensor(0.5000)
    """
    if isinstance(value, Tensor):
        return value.to(a.dtype)
    return torch.full((), value, dtype=a.dtype, device=a.device)


def length(a: Tensor) -> Tensor:
    """Return the Euclidean norm of all elements, with the derivative 0 at 0.

    >>> length(torch.tensor([[3.0, -4.0]]))
    tensor(5.)
    """
    return root((a * a).sum())


def rms(a: Tensor) -> Tensor:
    """Return the root of the mean square of all elements, 0 of none.

    >>> rms(torch.tensor([3.0, -3.0]))
    tensor(3.)
    """
    return root((a * a).sum() / max(a.numel(), 1))


def add_to_param(param: Tensor, update: Tensor, factor: Number = 1) -> Tensor:
    """Return param + factor * update, in the parameter's dtype.

    Raises:
        TreeMismatch: the shapes differ; what broadcasts would give wrong parameters silently.
        DtypeMismatch: the update is complex and the parameter is not.

    >>> add_to_param(torch.ones(2), torch.ones(2), -0.5)
    tensor([0.5000, 0.5000])
    """
    if param.shape != getattr(update, "shape", None):
        raise TreeMismatch("the updates must have the shapes of the parameters")  # by path: `check_gradients`
    after = plus(param, update, factor)
    if after.dtype == param.dtype:
        return after
    if after.is_complex():  # casting would leave out what is imaginary
        raise DtypeMismatch(f"an update must be of the kind of its parameter, which is real, and is {update.dtype}")
    return after.to(param.dtype)
