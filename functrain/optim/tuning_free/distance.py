"""Rates made of the distance from where training began: DoG, DoWG, Prodigy."""

from typing import Any

import torch
from torch import Tensor

from functrain.optim.arithmetic import is_zero, lerp, mean_square, plus, root, scalar_like, unhide
from functrain.optim.hypers import check_fixed, decays, nonnegative, positive
from functrain.optim.leaves import per_leaf
from functrain.optim.transform import Transform
from functrain.schedule import Hyper, Number


def _square(now: Any, g: Tensor, p: Tensor, first: Tensor) -> Tensor:
    return (g * g).sum(dtype=torch.float64)


def _away(now: Any, g: Tensor, p: Tensor, first: Tensor) -> Tensor:
    return (p - first).square().sum(dtype=torch.float64)


def _length(now: Any, g: Tensor, p: Tensor, first: Tensor) -> Tensor:
    return first.square().sum(dtype=torch.float64)


def scale_by_dog(initial: Hyper = 1e-6, eps: Hyper = 1e-8) -> Transform:
    """Return the transform that scales by the distance from the beginning over the size of all gradients.

    With p_0 the first parameters, r = max(r, |p - p_0|), where r begins at initial (1 + |p_0|), and
    G = G + |g|^2 of all leaves together, u = g r / sqrt(G + eps). (Ivgi et al., 2023, https://arxiv.org/abs/2302.12022,
    who evaluate a mean of the parameters: see `callbacks.ema`.)

    Args:
        initial: above 0, the first distance beside the size of the parameters; with batch norm rather 1e-4. The
            hyperparameter "initial".
        eps: at least 0, keeps the divisor away from zero; the hyperparameter "eps".

    Raises:
        InvalidArgument: a number is out of range.

    >>> piece, params = scale_by_dog(0.1), {"w": torch.tensor([3.0, 0.0])}
    >>> piece.update({"w": torch.tensor([0.0, 2.0])}, piece.init(params), params)[0]
    {'w': tensor([0.0000, 0.4000])}
    """

    def once(now) -> dict:
        distance = torch.maximum(torch.maximum(now.distance, root(now.away)), (1 + root(now.length)) * now.initial)
        squares = now.squares + now.square
        return {"distance": distance, "squares": squares, "rate": distance / root(squares + now.eps)}

    def formula(now, g: Tensor, p: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        return unhide(g * now.rate, g), first

    return per_leaf(
        "scale_by_dog",
        formula,
        positive(initial=initial) | nonnegative(eps=eps),
        {"first": torch.clone},
        shared={"distance": 0.0, "squares": 0.0},
        once=once,
        sums={"square": _square, "away": _away, "length": _length},
    )


def scale_by_dowg(initial: Hyper = 1e-4, eps: Hyper = 1e-4) -> Transform:
    """Return the transform of `scale_by_dog` whose gradients count more the further they are from the beginning.

    With p_0 the first parameters, r = max(r, |p - p_0|^2), where r begins at `initial`, and G = G + r |g|^2 of all
    leaves together, u = g r / (sqrt(G) + eps). (Khaled et al., 2023, https://arxiv.org/abs/2305.16284; the beginning as
    optax has it.)

    Args:
        initial: above 0, the square of the first distance; the hyperparameter "initial".
        eps: at least 0, keeps the divisor away from zero; the hyperparameter "eps".

    Raises:
        InvalidArgument: a number is out of range.

    >>> piece, params = scale_by_dowg(0.25, eps=0.0), {"w": torch.tensor([3.0, 0.0])}
    >>> piece.update({"w": torch.tensor([0.0, 2.0])}, piece.init(params), params)[0]
    {'w': tensor([0.0000, 0.5000])}
    """

    def once(now) -> dict:
        distance = torch.maximum(torch.maximum(now.distance, now.away), scalar_like(now.away, now.initial))
        squares = now.squares + distance * now.square
        return {"distance": distance, "squares": squares, "rate": distance / _nonzero(root(squares) + now.eps)}

    def formula(now, g: Tensor, p: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        return unhide(g * now.rate, g), first

    return per_leaf(
        "scale_by_dowg",
        formula,
        positive(initial=initial) | nonnegative(eps=eps),
        {"first": torch.clone},
        shared={"distance": 0.0, "squares": 0.0},
        once=once,
        sums={"square": _square, "away": _away},
    )


def _nonzero(a: Tensor) -> Tensor:
    return torch.where(a == 0, 1.0, a)


def scale_by_prodigy(
    lr: Hyper = 1.0,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    b3: Hyper | None = None,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    initial: Number = 1e-6,
    growth: Hyper = 1.0,
    safeguard: bool = False,
) -> Transform:
    """Return the transform of Adam that estimates how far the minimum is, and steps by a part of that.

    The estimate d begins at `initial`, d_0. With p_0 the first parameters and h = d lr sqrt(1 - b2^t) / (1 - b1^t),
    m = b1 m + (1 - b1) d g,  v = b2 v + (1 - b2) d^2 g^2,  s = b3 s + d h g / d_0,
    n = b3 n + d h <g, p_0 - p> / d_0,  D = max(d, growth n / |s|_1),
    u = h (m / (sqrt(v) + D eps) + weight_decay p), and then d = D. Both sums are over all leaves.
    (Mishchenko and Defazio, 2023, https://arxiv.org/abs/2306.06101; as in optax and in the authors' code.)

    Args:
        lr: at least 0, a factor of the estimate, which a schedule may let fall; the hyperparameter "lr".
        b1: in [0, 1), the decay of the mean; the hyperparameter "b1".
        b2: in [0, 1), the decay of the mean square; the hyperparameter "b2".
        b3: in [0, 1), the decay of the sums of the estimate; None for sqrt(b2). The hyperparameter "b3".
        eps: at least 0, keeps the divisor away from zero; the hyperparameter "eps".
        weight_decay: at least 0, decoupled; the hyperparameter "weight_decay", unless it is the number 0.
        initial: above 0, where the estimate begins.
        growth: at least 0, a factor of the estimates; the hyperparameter "growth".
        safeguard: whether s leaves h out, for a long warm-up.

    Raises:
        InvalidArgument: a number is out of range.

    >>> piece, params = scale_by_prodigy(initial=0.5), {"w": torch.zeros(2)}
    >>> piece.update({"w": torch.tensor([3.0, -0.1])}, piece.init(params), params)[0]
    {'w': tensor([ 0.5000, -0.5000])}
    """
    beginning: Any = check_fixed(initial=initial)["initial"]
    positive(initial=initial)
    decay = {} if is_zero(weight_decay) else nonnegative(weight_decay=weight_decay)

    def rate(now) -> Any:
        return now.estimate * now.lr * (1 - now.b2**now.t).sqrt() / (1 - now.b1**now.t)

    def kept(now) -> Any:
        return now.b2**0.5 if b3 is None else now.b3

    def added(now) -> Any:
        return now.estimate / beginning * (now.estimate if safeguard else rate(now))

    def inner(now, g: Tensor, p: Tensor, m: Tensor, v: Tensor, s: Tensor, first: Tensor) -> Tensor:
        return (g * (first - p)).sum(dtype=torch.float64)

    def size(now, g: Tensor, p: Tensor, m: Tensor, v: Tensor, s: Tensor, first: Tensor) -> Tensor:
        return (s * kept(now) + g * added(now)).abs().sum(dtype=torch.float64)

    def once(now) -> dict:
        numerator = kept(now) * now.numerator + now.estimate / beginning * rate(now) * now.inner
        some = now.size > 0  # a batch without any gradient says nothing
        guess = torch.where(some, now.growth * numerator / torch.where(some, now.size, 1.0), 0.0)
        estimate = torch.maximum(now.estimate, guess)
        return {
            "before": now.estimate,
            "added": added(now),
            "rate": rate(now),
            "numerator": numerator,
            "estimate": estimate,
        }

    def formula(now, g: Tensor, p: Tensor, m: Tensor, v: Tensor, s: Tensor, first: Tensor) -> tuple[Tensor, ...]:
        seen = g * now.before
        m, v = lerp(m, seen, 1 - now.b1), mean_square(v, seen, now.b2)
        u = unhide(m / (root(v) + now.estimate * now.eps), v)
        u = plus(u, p, now.weight_decay) if decay else u
        return u * now.rate, m, v, s * kept(now) + g * now.added, first

    hypers = nonnegative(lr=lr, eps=eps, growth=growth) | decays(b1=b1, b2=b2) | decay
    hypers |= {} if b3 is None else decays(b3=b3)
    slots = dict.fromkeys(("mean", "square", "sum"), torch.zeros_like) | {"first": torch.clone}
    return per_leaf(
        "scale_by_prodigy",
        formula,
        hypers,
        slots,
        counts=True,
        shared={"estimate": beginning, "numerator": 0.0},
        once=once,
        sums={"inner": inner, "size": size},
    )
