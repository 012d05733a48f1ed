"""Steps divided by the root of a mean square of the gradients."""

from torch import Tensor

from functrain.optim.arithmetic import lerp, mean_square, root, unhidden
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

    >>> import torch
    >>> piece, params = scale_by_adam(), {"w": torch.zeros(2)}
    >>> piece.update({"w": torch.tensor([3.0, -0.1])}, piece.init(params), params)[0]
    {'w': tensor([ 1., -1.])}
    """

    def once(now) -> dict:
        # The same as in the formula, with both corrections moved to one factor; in float64.
        correction = (1 - now.b2**now.t).sqrt()
        return {"factor": correction / (1 - now.b1**now.t), "floor": correction * now.eps}

    def formula(now, g: Tensor, p: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        m, v = lerp(m, g, 1 - now.b1), mean_square(v, g, now.b2)
        return unhidden(m * now.factor / (root(v) + now.floor), v), m, v

    hypers = decays(b1=b1, b2=b2) | nonnegative(eps=eps)
    return per_leaf("scale_by_adam", formula, hypers, ["mean", "square"], counts=True, once=once)
