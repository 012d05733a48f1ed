"""Mean squares of matrices by their rows and columns, and sizes relative to those of the parameters: Adafactor."""

import torch
from torch import Tensor

from functrain.optim.arithmetic import is_zero, lerp, plus, rms, root, scalar_like, unhide
from functrain.optim.hypers import nonnegative
from functrain.optim.leaves import per_leaf
from functrain.optim.transform import Transform
from functrain.schedule import Hyper, check_hyper


def scale_by_factored_rms(decay_power: Hyper = -0.8, eps: float | None = None) -> Transform:
    """Return the transform that divides by the root of a mean square, of which it keeps sums of rows and columns.

    With b = t^decay_power: of a vector, v = (1 - b) v + b g^2. Of a matrix (n, m), and of the last two axes of more,
    r = (1 - b) r + b mean of g^2 over columns, c likewise over rows, and v = r c / max(mean(r), eps), which takes n + m
    numbers instead of n m. u = g / sqrt(max(v, eps^2)). (Shazeer and Stern, 2018, https://arxiv.org/abs/1804.04235; as
    in torch.optim.Adafactor.)

    Args:
        decay_power: at most 0, the power of t; the hyperparameter "decay_power".
        eps: keeps the divisor away from zero; None for the resolution of the dtype in which it is computed.

    Raises:
        InvalidArgument: a number is out of range.
        DtypeMismatch: in `init`, a parameter is complex.

    >>> piece, params = scale_by_factored_rms(), {"w": torch.zeros(2, 3)}
    >>> updates, state = piece.update({"w": torch.full((2, 3), 5.0)}, piece.init(params), params)
    >>> updates["w"][0], state["row"]["w"].shape, state["column"]["w"].shape
    (tensor([1., 1., 1.]), torch.Size([2, 1]), torch.Size([1, 3]))
    """
    if eps is not None:
        nonnegative(eps=eps)

    def once(now) -> dict:
        return {"part": now.t**now.decay_power}

    def formula(now, g: Tensor, p: Tensor, r: Tensor, c: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        small = torch.finfo(g.dtype).eps if eps is None else eps
        squares = g * g
        if g.dim() < 2:
            v = estimate = lerp(v, squares, now.part)
        else:
            r, c = lerp(r, _mean(squares, -1), now.part), lerp(c, _mean(squares, -2), now.part)
            estimate = r @ c / _mean(r, -2).clamp(min=small)
        return unhide(g / root(estimate.clamp(min=small**2)), estimate), r, c, v

    hypers = {"decay_power": check_hyper("decay_power", decay_power, maximum=0)}
    slots = {"row": _row, "column": _column, "square": _square}
    return per_leaf("scale_by_factored_rms", formula, hypers, slots, counts=True, once=once, real=True)


def _mean(a: Tensor, axis: int) -> Tensor:
    return a.sum(axis, keepdim=True) / max(a.shape[axis], 1)  # the mean of nothing is 0 here, and not NaN


def _row(p: Tensor) -> Tensor:
    return p.new_zeros(0) if p.dim() < 2 else p.new_zeros((*p.shape[:-1], 1))


def _column(p: Tensor) -> Tensor:
    return p.new_zeros(0) if p.dim() < 2 else p.new_zeros((*p.shape[:-2], 1, p.shape[-1]))


def _square(p: Tensor) -> Tensor:
    return torch.zeros_like(p) if p.dim() < 2 else p.new_zeros(0)


def scale_by_param_rms(least: Hyper = 1e-3) -> Transform:
    """Return the transform that makes updates relative to their parameter: u = g max(RMS(p), least), leaf by leaf.

    RMS is the root of the mean square of a leaf's elements. (Shazeer and Stern, 2018, section 8,
    https://arxiv.org/abs/1804.04235.)

    Args:
        least: at least 0, for parameters that are almost zero; the hyperparameter "least".

    Raises:
        InvalidArgument: the number is out of range.

    >>> piece, params = scale_by_param_rms(), {"w": torch.full((2,), 3.0)}
    >>> piece.update({"w": torch.tensor([1.0, -0.5])}, (), params)[0]
    {'w': tensor([ 3.0000, -1.5000])}
    """

    def formula(now, g: Tensor, p: Tensor) -> Tensor:
        return g * torch.maximum(rms(p), scalar_like(p, now.least))

    return per_leaf("scale_by_param_rms", formula, nonnegative(least=least))


def scale_by_relative_step(lr: Hyper, weight_decay: Hyper = 0.0) -> Transform:
    """Return the transform that steps against the gradient by a rate that falls.

    In the t-th update u = -(min(lr, 1 / sqrt(t)) g + lr weight_decay p). (Shazeer and Stern, 2018, section 8, https://arxiv.org/abs/1804.04235.)

    Args:
        lr: at least 0; the hyperparameter "lr".
        weight_decay: at least 0; the hyperparameter "weight_decay", unless it is the number 0.

    Raises:
        InvalidArgument: a number is out of range.

    >>> piece, params = scale_by_relative_step(0.9), {"w": torch.zeros(2)}
    >>> state = {"count": torch.tensor(3)}
    >>> piece.update({"w": torch.tensor([1.0, -1.0])}, state, params)[0]
    {'w': tensor([-0.5000,  0.5000])}
    """
    decay = {} if is_zero(weight_decay) else nonnegative(weight_decay=weight_decay)

    def once(now) -> dict:
        rate = torch.minimum(now.t**-0.5, scalar_like(now.t, now.lr))
        return {"rate": rate, "shrink": now.lr * now.weight_decay if decay else 0.0}

    def formula(now, g: Tensor, p: Tensor) -> Tensor:
        return plus(-g * now.rate, p, -now.shrink) if decay else -g * now.rate

    return per_leaf("scale_by_relative_step", formula, nonnegative(lr=lr) | decay, counts=True, once=once)
