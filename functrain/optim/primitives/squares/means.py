"""The gradient divided by the size that it usually has: RMSProp, Adagrad, Adadelta."""

import torch
from torch import Tensor

from functrain.optim.arithmetic import lerp, mean_square, plus_square, root, unhide
from functrain.optim.hypers import check_fixed, decays, nonnegative
from functrain.optim.leaves import per_leaf
from functrain.optim.transform import Transform
from functrain.schedule import Hyper, Number


def _divide(g: Tensor, v: Tensor, eps: Number, eps_in_root: bool) -> Tensor:
    return unhide(g / (root(v + eps) if eps_in_root else root(v) + eps), v)


def scale_by_rms(decay: Hyper = 0.99, eps: Hyper = 1e-8, eps_in_root: bool = False) -> Transform:
    """Return the transform that divides by the root of a mean square.

    v = decay v + (1 - decay) g^2, and u = g / (sqrt(v) + eps). (Tieleman and Hinton, 2012, https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf.)

    Args:
        decay: in [0, 1), the decay of the mean square; the hyperparameter "decay".
        eps: at least 0, keeps the divisor away from zero; the hyperparameter "eps".
        eps_in_root: whether eps is added before the root is taken, as in optax.

    Raises:
        InvalidArgument: a number is out of range.

    See also: `scale_by_stddev`, which subtracts the mean.

    >>> piece, params = scale_by_rms(decay=0.75), {"w": torch.zeros(2)}
    >>> piece.update({"w": torch.tensor([3.0, -0.1])}, piece.init(params), params)[0]
    {'w': tensor([ 2.0000, -2.0000])}
    """

    def formula(now, g: Tensor, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        v = mean_square(v, g, now.decay)
        return _divide(g, v, now.eps, eps_in_root), v

    return per_leaf("scale_by_rms", formula, decays(decay=decay) | nonnegative(eps=eps), ["square"])


def scale_by_rms_without_bias(b2: Hyper = 0.999, eps: Hyper = 1e-8) -> Transform:
    """Return the transform that divides by the root of a mean square which is not drawn to where it begins.

    v = b2 v + (1 - b2) g^2, and in the t-th update u = g / (sqrt(v / (1 - b2^t)) + eps): Adam without a mean
    of the gradients (Kingma and Ba, 2015, https://arxiv.org/abs/1412.6980).

    Args:
        b2: in [0, 1), the decay of the mean square; the hyperparameter "b2".
        eps: at least 0, keeps the divisor away from zero; the hyperparameter "eps".

    Raises:
        InvalidArgument: a number is out of range.

    >>> piece, params = scale_by_rms_without_bias(b2=0.75), {"w": torch.zeros(2)}
    >>> piece.update({"w": torch.tensor([3.0, -0.1])}, piece.init(params), params)[0]
    {'w': tensor([ 1.0000, -1.0000])}
    """

    def once(now) -> dict:
        correction = (1 - now.b2**now.t).sqrt()
        return {"factor": correction, "floor": correction * now.eps}

    def formula(now, g: Tensor, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        v = mean_square(v, g, now.b2)
        return unhide(g * now.factor / (root(v) + now.floor), v), v

    hypers = decays(b2=b2) | nonnegative(eps=eps)
    return per_leaf("scale_by_rms_without_bias", formula, hypers, ["square"], counts=True, once=once)


def scale_by_stddev(decay: Hyper = 0.99, eps: Hyper = 1e-8, eps_in_root: bool = False) -> Transform:
    """Return the transform that divides by a standard deviation.

    v = decay v + (1 - decay) g^2, m = decay m + (1 - decay) g, and u = g / (sqrt(v - m^2) + eps). (Graves, 2013, https://arxiv.org/abs/1308.0850.)

    Args:
        decay: in [0, 1), the decay of both means; the hyperparameter "decay".
        eps: at least 0, keeps the divisor away from zero; the hyperparameter "eps".
        eps_in_root: whether eps is added before the root is taken, as in optax.

    Raises:
        InvalidArgument: a number is out of range.

    >>> piece, params = scale_by_stddev(decay=0.5), {"w": torch.zeros(2)}
    >>> piece.update({"w": torch.tensor([3.0, -0.1])}, piece.init(params), params)[0]
    {'w': tensor([ 2.0000, -2.0000])}
    """

    def formula(now, g: Tensor, p: Tensor, v: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        v, m = mean_square(v, g, now.decay), lerp(m, g, 1 - now.decay)
        # Rounding can make the difference negative.
        return unhide(_divide(g, (v - m * m).clamp(min=0), now.eps, eps_in_root), v), v, m

    return per_leaf("scale_by_stddev", formula, decays(decay=decay) | nonnegative(eps=eps), ["square", "mean"])


def scale_by_rss(initial: Number = 0.0, eps: Hyper = 1e-10, eps_in_root: bool = False) -> Transform:
    """Return the transform that divides by the root of the sum of all squares: v = v + g^2, u = g / (sqrt(v) + eps).

    (Duchi et al., 2011, https://jmlr.org/papers/v12/duchi11a.html.)

    Args:
        initial: at least 0, where the sum begins.
        eps: at least 0, keeps the divisor away from zero; the hyperparameter "eps".
        eps_in_root: whether eps is added before the root is taken, as in optax.

    Raises:
        InvalidArgument: a number is out of range.

    >>> piece, params = scale_by_rss(), {"w": torch.zeros(2)}
    >>> piece.update({"w": torch.tensor([3.0, -0.1])}, piece.init(params), params)[0]
    {'w': tensor([ 1., -1.])}
    """
    beginning = check_fixed(initial=initial)["initial"]

    def formula(now, g: Tensor, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        v = plus_square(v, g, 1)
        return _divide(g, v, now.eps, eps_in_root), v

    slots = {"square": lambda p: torch.zeros_like(p) + beginning}
    return per_leaf("scale_by_rss", formula, nonnegative(eps=eps), slots)


def scale_by_adadelta(rho: Hyper = 0.9, eps: Hyper = 1e-6) -> Transform:
    """Return the transform that gives updates the size of the updates before.

    v = rho v + (1 - rho) g^2,  u = g sqrt(d + eps) / sqrt(v + eps),  d = rho d + (1 - rho) u^2.
    (Zeiler, 2012, https://arxiv.org/abs/1212.5701.)

    Args:
        rho: in [0, 1), the decay of both mean squares; the hyperparameter "rho".
        eps: at least 0, from which the updates grow; the hyperparameter "eps".

    Raises:
        InvalidArgument: a number is out of range.

    >>> piece, params = scale_by_adadelta(rho=0.75, eps=1e-6), {"w": torch.zeros(2)}
    >>> piece.update({"w": torch.tensor([3.0, -0.1])}, piece.init(params), params)[0]
    {'w': tensor([ 0.0020, -0.0020])}
    """

    def formula(now, g: Tensor, p: Tensor, v: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        v = mean_square(v, g, now.rho)
        u = unhide(g * root(d + now.eps) / root(v + now.eps), v)
        return u, v, mean_square(d, u, now.rho)

    return per_leaf("scale_by_adadelta", formula, decays(rho=rho) | nonnegative(eps=eps), ["square", "change"])
