"""Decaying sums of what came in."""

from torch import Tensor

from functrain.errors import InvalidArgument
from functrain.optim.arithmetic import is_zero, lerp, plus, times
from functrain.optim.hypers import decays, finite, nonnegative
from functrain.optim.leaves import per_leaf
from functrain.optim.transform import Transform
from functrain.schedule import Hyper


def trace(momentum: Hyper, dampening: Hyper = 0.0, nesterov: bool = False) -> Transform:
    """Return the transform that keeps a decaying sum of what came in (momentum), as torch.optim.SGD does.

    b = momentum * b + (1 - dampening) * g, and u = b; with `nesterov` u = g + momentum * b. The first update is not
    dampened: b = g. (Polyak, 1964, https://doi.org/10.1016/0041-5553(64)90137-5; Sutskever et al., 2013,
    https://proceedings.mlr.press/v28/sutskever13.html.)

    Args:
        momentum: at least 0; the hyperparameter "momentum".
        dampening: the hyperparameter "dampening", unless it is the number 0.
        nesterov: whether to look one step ahead.

    Raises:
        InvalidArgument: a number is out of range, or `nesterov` comes with a momentum of zero or with dampening.

    >>> import torch
    >>> piece, params = trace(momentum=0.5), {"w": torch.zeros(1)}
    >>> first, state = piece.update({"w": torch.tensor([4.0])}, piece.init(params), params)
    >>> second, state = piece.update({"w": torch.tensor([4.0])}, state, params)
    >>> first, second
    ({'w': tensor([4.])}, {'w': tensor([6.])})
    """
    hypers, damping = nonnegative(momentum=momentum), finite(dampening=dampening)
    damped = not is_zero(dampening)
    if nesterov and (is_zero(momentum) or damped):
        raise InvalidArgument(
            f"nesterov needs a momentum and no dampening, got momentum={momentum!r}, dampening={dampening!r}"
        )

    def formula(now, g: Tensor, p: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        # A buffer of zeros makes the first one the gradient itself; only dampening must know which is the first.
        b = plus(times(g, now.kept) if damped else g, b, now.momentum)
        return (plus(g, b, now.momentum) if nesterov else b), b

    def once(now) -> dict:
        return {"kept": 1.0 - (now.t > 1).double() * now.dampening}

    if not damped:
        return per_leaf("trace", formula, hypers, ["buffer"])
    return per_leaf("trace", formula, hypers | damping, ["buffer"], counts=True, once=once)


def ema(decay: Hyper, nesterov: bool = False, debias: bool = False) -> Transform:
    """Return the transform that averages what came in: m = decay m + (1 - decay) g, and u = m.

    The mean begins at 0, to which the first updates are drawn; with `debias`, u = m / (1 - decay^t) in the t-th update.
    With `nesterov`, u = decay m + (1 - decay) g.

    Args:
        decay: in [0, 1); the hyperparameter "momentum".
        nesterov: whether to look one step ahead.
        debias: whether to correct that the mean begins at 0.

    Raises:
        InvalidArgument: the decay is out of range, or `nesterov` comes with `debias`.

    See also: `trace`, which sums.

    >>> import torch
    >>> piece, params = ema(0.75), {"w": torch.zeros(1)}
    >>> piece.update({"w": torch.tensor([4.0])}, piece.init(params), params)
    ({'w': tensor([1.])}, {'mean': {'w': tensor([1.])}})
    """

    def formula(now, g: Tensor, p: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        m = lerp(m, g, 1 - now.momentum)
        return (lerp(g, m, now.momentum) if nesterov else m), m

    def debiased(now, g: Tensor, p: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        m = lerp(m, g, 1 - now.momentum)
        return m * now.factor, m

    def once(now) -> dict:
        return {"factor": 1 / (1 - now.momentum**now.t)}

    if nesterov and debias:
        raise InvalidArgument("nesterov and debias exclude each other; scale_by_nadam corrects a mean that looks ahead")
    if debias:
        return per_leaf("ema", debiased, decays(momentum=decay), ["mean"], counts=True, once=once)
    return per_leaf("ema", formula, decays(momentum=decay), ["mean"])
