"""Adam and its relatives: a mean of the gradients divided by the size that they usually have."""

import torch
from torch import Tensor

from functrain.optim.arithmetic import lerp, mean_square, root, unhide
from functrain.optim.hypers import decays, nonnegative
from functrain.optim.leaves import per_leaf
from functrain.optim.transform import Transform
from functrain.schedule import Hyper


def scale_by_adam(b1: Hyper = 0.9, b2: Hyper = 0.999, eps: Hyper = 1e-8) -> Transform:
    """Return the transform that divides a mean of the gradients by the root of their mean square.

    m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,  and in the t-th update
    u = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps). (Kingma and Ba, 2015, https://arxiv.org/abs/1412.6980.)
    Scheduled b1 and b2 correct the bias with their current value, as PyTorch's one-cycle schedule does. A complex
    number counts as two real ones, as in PyTorch. Where g or g^2 is not finite in the dtype of v, the update is NaN.

    Args:
        b1: in [0, 1), the decay of the mean; the hyperparameter "b1".
        b2: in [0, 1), the decay of the mean square; the hyperparameter "b2".
        eps: at least 0, keeps the divisor away from zero; the hyperparameter "eps".

    Raises:
        InvalidArgument: a number is out of range.

    >>> piece, params = scale_by_adam(), {"w": torch.zeros(2)}
    >>> piece.update({"w": torch.tensor([3.0, -0.1])}, piece.init(params), params)[0]
    {'w': tensor([ 1., -1.])}
    """

    def formula(now, g: Tensor, p: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        m, v = lerp(m, g, 1 - now.b1), mean_square(v, g, now.b2)
        return unhide(m * now.factor / (root(v) + now.floor), v), m, v

    hypers = decays(b1=b1, b2=b2) | nonnegative(eps=eps)
    return per_leaf("scale_by_adam", formula, hypers, ["mean", "square"], counts=True, once=_corrections)


def _corrections(now) -> dict:
    # The corrections of the bias, both moved to one factor of m; computed in float64.
    correction = (1 - now.b2**now.t).sqrt()
    return {"factor": correction / (1 - now.b1**now.t), "floor": correction * now.eps}


def scale_by_amsgrad(b1: Hyper = 0.9, b2: Hyper = 0.999, eps: Hyper = 1e-8) -> Transform:
    """Return the transform of Adam that divides by the root of the largest mean square so far.

    m and v as in `scale_by_adam`, w = max(w, v), and u = (m / (1 - b1^t)) / (sqrt(w / (1 - b2^t)) + eps), as
    torch.optim does with `amsgrad=True`. (Reddi et al., 2018, https://openreview.net/forum?id=ryQu7f-RZ.)

    Args:
        b1: in [0, 1), the decay of the mean; the hyperparameter "b1".
        b2: in [0, 1), the decay of the mean square; the hyperparameter "b2".
        eps: at least 0, keeps the divisor away from zero; the hyperparameter "eps".

    Raises:
        InvalidArgument: a number is out of range.

    >>> piece, params = scale_by_amsgrad(), {"w": torch.zeros(2)}
    >>> piece.update({"w": torch.tensor([3.0, -0.1])}, piece.init(params), params)[0]
    {'w': tensor([ 1., -1.])}
    """

    def formula(now, g: Tensor, p: Tensor, m: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        m, v = lerp(m, g, 1 - now.b1), mean_square(v, g, now.b2)
        w = torch.maximum(w, v)
        return unhide(m * now.factor / (root(w) + now.floor), w), m, v, w

    hypers = decays(b1=b1, b2=b2) | nonnegative(eps=eps)
    slots = ["mean", "square", "largest"]
    return per_leaf("scale_by_amsgrad", formula, hypers, slots, counts=True, once=_corrections)


def scale_by_adamax(b1: Hyper = 0.9, b2: Hyper = 0.999, eps: Hyper = 1e-8) -> Transform:
    """Return the transform that divides a mean of the gradients by their largest size, which decays.

    m = b1 m + (1 - b1) g,  w = max(b2 w, |g| + eps),  u = (m / (1 - b1^t)) / w.
    (Kingma and Ba, 2015, section 7, https://arxiv.org/abs/1412.6980.)

    Args:
        b1: in [0, 1), the decay of the mean; the hyperparameter "b1".
        b2: in [0, 1), the decay of the largest size; the hyperparameter "b2".
        eps: at least 0, keeps the divisor away from zero; the hyperparameter "eps".

    Raises:
        InvalidArgument: a number is out of range.

    >>> piece, params = scale_by_adamax(), {"w": torch.zeros(2)}
    >>> piece.update({"w": torch.tensor([3.0, -0.1])}, piece.init(params), params)[0]
    {'w': tensor([ 1., -1.])}
    """

    def once(now) -> dict:
        return {"factor": 1 / (1 - now.b1**now.t)}

    def formula(now, g: Tensor, p: Tensor, m: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        m, w = lerp(m, g, 1 - now.b1), torch.maximum(w * now.b2, g.abs() + now.eps)
        return m * now.factor / w, m, w

    hypers = decays(b1=b1, b2=b2) | nonnegative(eps=eps)
    return per_leaf("scale_by_adamax", formula, hypers, ["mean", "largest"], counts=True, once=once)


def scale_by_nadam(b1: Hyper = 0.9, b2: Hyper = 0.999, eps: Hyper = 1e-8, momentum_decay: Hyper = 0.004) -> Transform:
    """Return the transform of Adam with Nesterov's momentum, which looks one step ahead.

    m and v as in `scale_by_adam`. With c_t = b1 (1 - 0.96^(t momentum_decay) / 2) and C_t = c_1 c_2 ... c_t,
    u = ((1 - c_t) / (1 - C_t) g + c_(t+1) / (1 - C_(t+1)) m) / (sqrt(v / (1 - b2^t)) + eps).
    (Dozat, 2016, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ.)

    Args:
        b1: in [0, 1), the decay of the mean; the hyperparameter "b1".
        b2: in [0, 1), the decay of the mean square; the hyperparameter "b2".
        eps: at least 0, keeps the divisor away from zero; the hyperparameter "eps".
        momentum_decay: at least 0, how fast c_t grows to b1; the hyperparameter "momentum_decay".

    Raises:
        InvalidArgument: a number is out of range.

    >>> piece, params = scale_by_nadam(), {"w": torch.zeros(2)}
    >>> piece.update({"w": torch.tensor([3.0, -0.1])}, piece.init(params), params)[0]
    {'w': tensor([ 1.0565, -1.0565])}
    """

    def momentum(now, t: Tensor) -> Tensor:
        return now.b1 * (1 - 0.5 * 0.96 ** (t * now.momentum_decay))

    def once(now) -> dict:
        here, ahead = momentum(now, now.t), momentum(now, now.t + 1)
        product = now.product * here
        return {
            "product": product,
            "of_gradient": (1 - here) / (1 - product),
            "of_mean": ahead / (1 - product * ahead),
            "correction": 1 / (1 - now.b2**now.t).sqrt(),
        }

    def formula(now, g: Tensor, p: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        m, v = lerp(m, g, 1 - now.b1), mean_square(v, g, now.b2)
        ahead = g * now.of_gradient + m * now.of_mean
        return unhide(ahead / (root(v) * now.correction + now.eps), v), m, v

    hypers = decays(b1=b1, b2=b2) | nonnegative(eps=eps, momentum_decay=momentum_decay)
    slots = ["mean", "square"]
    return per_leaf("scale_by_nadam", formula, hypers, slots, counts=True, shared={"product": 1.0}, once=once)


def scale_by_radam(b1: Hyper = 0.9, b2: Hyper = 0.999, eps: Hyper = 1e-8) -> Transform:
    """Return the transform of Adam that divides only once the mean square is known well enough.

    m and v as in `scale_by_adam`, r = 2 / (1 - b2) - 1, and r_t = r - 2 t b2^t / (1 - b2^t). Where r_t > 5,
    u = sqrt((r_t - 4) (r_t - 2) r / ((r - 4) (r - 2) r_t)) sqrt(1 - b2^t) (m / (1 - b1^t)) / (sqrt(v) + eps);
    before, u = m / (1 - b1^t). (Liu et al., 2020, https://arxiv.org/abs/1908.03265.)

    Args:
        b1: in [0, 1), the decay of the mean; the hyperparameter "b1".
        b2: in [0, 1), the decay of the mean square; the hyperparameter "b2".
        eps: at least 0, keeps the divisor away from zero; the hyperparameter "eps".

    Raises:
        InvalidArgument: a number is out of range.

    >>> piece, params = scale_by_radam(), {"w": torch.zeros(2)}
    >>> piece.update({"w": torch.tensor([3.0, -0.1])}, piece.init(params), params)[0]
    {'w': tensor([ 3.0000, -0.1000])}
    """

    def once(now) -> dict:
        power, most = now.b2**now.t, 2 / (1 - now.b2) - 1
        length = most - 2 * now.t * power / (1 - power)
        rectified = length > 5
        r = torch.where(rectified, length, 6.0)  # for no root of a negative number, and its derivative
        ratio = (r - 4) * (r - 2) * most / ((most - 4) * (most - 2) * r)
        factor = torch.where(rectified, (1 - power) * ratio, 1.0).sqrt()
        return {"rectified": rectified, "factor": factor / (1 - now.b1**now.t)}

    def formula(now, g: Tensor, p: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        m, v = lerp(m, g, 1 - now.b1), mean_square(v, g, now.b2)
        return unhide(m * now.factor / torch.where(now.rectified, root(v) + now.eps, 1.0), v), m, v

    hypers = decays(b1=b1, b2=b2) | nonnegative(eps=eps)
    return per_leaf("scale_by_radam", formula, hypers, ["mean", "square"], counts=True, once=once)
