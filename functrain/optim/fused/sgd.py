"""PyTorch's fused kernel of gradient descent with momentum."""

from typing import Any

from torch import Tensor

from functrain.optim.fused.operator import define, functions, parts
from functrain.optim.transform import identity

CHUNK = 1 << 15
"""Elements that are updated at once, so that what was read stays in the cache of a core."""


def sgd_(
    params: list[Tensor],
    buffers: list[Tensor],
    gradients: list[Tensor],
    lr: float | Tensor,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> None:
    """Update parameters and momenta in place.

    Args:
        params: contiguous tensors of float32 or float64 on the CPU; the lists after it have such of the same shapes.
        buffers: the momenta.
        gradients: which are only read.
        lr: the learning rate.
        momentum: the decay of the momenta.
        nesterov: whether to look one step ahead.
        weight_decay: an L2 penalty.

    >>> import torch
    >>> p, b = torch.zeros(1), torch.ones(1)
    >>> sgd_([p], [b], [torch.ones(1)], 0.5, 0.5, False, 0.0)
    >>> p, b
    (tensor([-0.7500]), tensor([1.5000]))
    """
    kernel: Any = functions._fused_sgd_
    numbers = {"lr": float(lr), "momentum": momentum, "dampening": 0.0, "weight_decay": weight_decay}
    kernel(params, gradients, buffers, nesterov=nesterov, maximize=False, is_first_step=False, **numbers)


def sgd(
    params: list[Tensor],
    buffers: list[Tensor],
    gradients: list[Tensor],
    lr: float | Tensor,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> list[Tensor]:
    """Return the parameters and the momenta after an update, see `sgd_`, in one list.

    >>> import torch
    >>> sgd([torch.zeros(1)], [torch.ones(1)], [torch.ones(1)], 0.5, 0.5, False, 0.0)
    [tensor([-0.7500]), tensor([1.5000])]
    """
    add: Any = functions._foreach_add
    moved, kept, rate = [], [], float(lr)
    for part in parts(params, CHUNK):
        p, g = params[part], gradients[part]
        g = add(g, p, alpha=weight_decay) if weight_decay else g
        b = add(g, buffers[part], alpha=momentum)
        moved += add(p, add(g, b, alpha=momentum) if nesterov else b, alpha=-rate)
        kept += b
    return moved + kept


def _parts_of_sgd(
    params: list[Tensor],
    buffers: list[Tensor],
    gradients: list[Tensor],
    lr: float | Tensor,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> list[Tensor]:
    # Here, as the pieces may be chains themselves.
    from functrain.optim.primitives.decaying import add_decayed_weights
    from functrain.optim.primitives.momentum import trace
    from functrain.optim.primitives.scaling import scale_by_learning_rate
    from functrain.optim.stepping import apply_updates

    decay = add_decayed_weights(weight_decay) if weight_decay else identity
    updates, _ = decay.update(gradients, (), params)
    updates, state = trace(momentum, nesterov=nesterov).update(updates, {"buffer": buffers}, params)
    updates, _ = scale_by_learning_rate(lr).update(updates, (), params)
    return [*apply_updates(params, updates), *state["buffer"]]


SGD = define(
    "sgd(Tensor[] params, Tensor[] buffers, Tensor[] gradients, Tensor lr, float momentum, bool nesterov, "
    "float weight_decay) -> Tensor[]",
    sgd,
    sgd_,
    _parts_of_sgd,
    2,
)
