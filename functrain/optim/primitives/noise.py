"""Gradients with noise."""

from typing import Any

import torch
from torch import Tensor

from functrain import random
from functrain.optim.arithmetic import plus
from functrain.optim.context import Context
from functrain.optim.hypers import nonnegative
from functrain.optim.leaves import per_leaf
from functrain.optim.ordering import map_by_path
from functrain.optim.transform import Transform
from functrain.schedule import Hyper


def add_noise(eta: Hyper = 0.01, gamma: Hyper = 0.55, name: str = "add_noise") -> Transform:
    """Return the transform that adds normal noise, which becomes less.

    In the t-th update u = g + sqrt(eta / t^gamma) n, where n is drawn from the key of the step, the name and the path
    of the parameter, in float32: the same key gives the same noise. Of a complex number both parts have noise.
    (Neelakantan et al., 2015, https://arxiv.org/abs/1511.06807.)

    Args:
        eta: at least 0, the first variance; the hyperparameter "eta".
        gamma: at least 0, how fast it falls; the hyperparameter "gamma".
        name: what is folded into the key; two of them in one chain need two names, or their noise is the same.

    Raises:
        InvalidArgument: a number is out of range. In `update`, the context has no key.

    >>> piece, params = add_noise(eta=0.0), {"w": torch.zeros(1)}
    >>> context = Context(key=random.key(0))
    >>> piece.update({"w": torch.tensor([4.0])}, piece.init(params), params, context)
    ({'w': tensor([4.])}, {'count': tensor(1)})
    """

    def once(now) -> dict:
        return {"size": (now.eta / now.t**now.gamma) ** 0.5}

    def formula(now, g: Tensor, noise: Tensor) -> Tensor:
        return plus(g, noise, now.size)

    piece = per_leaf("add_noise", formula, nonnegative(eta=eta, gamma=gamma), counts=True, once=once)

    def update(updates: Any, state: Any, params: Any, context: Context) -> tuple[Any, Any]:
        key: Any = context.key
        noise = map_by_path(lambda path, leaf: _normal(random.fold_in(key, name, path), leaf), updates)
        return piece.update(updates, state, noise, context)

    return Transform(piece.init, update, piece.hypers, needs=("key",), label="add_noise")


def _normal(key: Tensor, like: Tensor) -> Tensor:
    shape = tuple(like.shape)
    if not like.is_complex():
        return random.normal(key, shape)
    return torch.view_as_complex(random.normal(key, (*shape, 2)))
