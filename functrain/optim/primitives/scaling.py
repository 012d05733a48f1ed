"""Multiplication by a number."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from functrain import schedule, tree
from functrain.optim.arithmetic import times
from functrain.optim.context import Context
from functrain.optim.hypers import finite, nonnegative
from functrain.optim.leaves import per_leaf
from functrain.optim.shapes import check_trainable
from functrain.optim.stepping import add_scaled
from functrain.optim.transform import Transform, as_primitive, stateless
from functrain.schedule import Hyper, Number


def scale(factor: Hyper) -> Transform:
    """Return the transform that multiplies: u = factor * g.

    Args:
        factor: any number, or a schedule; the hyperparameter "factor".

    Raises:
        InvalidArgument: the factor is no finite number.

    >>> scale(0.5).update({"w": torch.tensor([4.0])}, (), {"w": torch.zeros(1)})
    ({'w': tensor([2.])}, ())
    """
    return _scaling("scale", lambda context: schedule.value(factor, context), finite(factor=factor))


def scale_by_learning_rate(lr: Hyper) -> Transform:
    """Return the transform that steps against the gradient: u = -lr * g. The last piece of most chains.

    Args:
        lr: at least 0; the hyperparameter "lr".

    Raises:
        InvalidArgument: the learning rate is no finite number, or negative.

    >>> scale_by_learning_rate(0.5).update({"w": torch.tensor([4.0])}, (), {"w": torch.zeros(1)})
    ({'w': tensor([-2.])}, ())
    """
    hypers = nonnegative(lr=lr)
    piece = _scaling("scale_by_learning_rate", lambda context: -schedule.value(lr, context), hypers)
    return as_primitive("lr", piece, hypers)


def _scaling(label: str, factor: Callable[[Context], Number], hypers: Mapping[str, Hyper]) -> Transform:
    def init(params: Any) -> tuple[()]:
        check_trainable(params)
        return ()

    def update(updates: Any, state: Any, params: Any, context: Context) -> tuple[Any, Any]:
        return scale_leaves(updates, factor(context)), state

    def fused(updates: Any, state: Any, params: Any, context: Context) -> tuple[Any, Any]:
        return add_scaled(params, updates, factor(context), "the gradients"), state

    return Transform(init, update, hypers, fused, label=label)


def scale_leaves(updates: Any, factor: Number) -> Any:
    """Return the tree of `times(leaf, factor)`.

    >>> scale_leaves({"w": torch.ones(2)}, 0.5)
    {'w': tensor([0.5000, 0.5000])}
    """
    if isinstance(factor, Tensor):
        return tree.map(lambda g: times(g, factor), updates)
    return tree.map(lambda g: g * factor, updates)


def scale_by_inverse_time(lr_decay: Hyper) -> Transform:
    """Return the transform that makes updates smaller with time: in the t-th update u = g / (1 + (t - 1) lr_decay).

    Args:
        lr_decay: at least 0; the hyperparameter "lr_decay".

    Raises:
        InvalidArgument: the decay is out of range.

    >>> piece, params = scale_by_inverse_time(1.0), {"w": torch.zeros(1)}
    >>> state = {"count": torch.tensor(3)}
    >>> piece.update({"w": torch.tensor([4.0])}, state, params)
    ({'w': tensor([1.])}, {'count': tensor(4)})
    """

    def once(now) -> dict:
        return {"factor": 1 / (1 + (now.t - 1) * now.lr_decay)}

    def formula(now, g: Tensor, p: Tensor) -> Tensor:
        return g * now.factor

    return per_leaf("scale_by_inverse_time", formula, nonnegative(lr_decay=lr_decay), counts=True, once=once)


negate: Transform = stateless(lambda updates, params, context: tree.map(torch.neg, updates), label="negate")
"""The transform that turns the gradients around, u = -g: in front of a chain it climbs instead of descending."""
