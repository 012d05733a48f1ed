"""Averages instead of a schedule that falls: what is trained, what is stepped, and what is evaluated differ."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functrain import schedule, tree
from functrain.errors import InvalidArgument
from functrain.optim.arithmetic import lerp
from functrain.optim.context import Context
from functrain.optim.counting import has_updated
from functrain.optim.hypers import check_fixed, nonnegative, positive
from functrain.optim.ordering import own_paths
from functrain.optim.searching import search
from functrain.optim.shapes import check_gradients, check_state, device, wide_copy
from functrain.optim.transform import Transform, made_by
from functrain.optim.wrappers.looking_ahead import LookedAhead
from functrain.records import reprs
from functrain.schedule import Hyper, Number


@tree.node
class ScheduleFree:
    """The state of `schedule_free`; all but the last two are float64 scalars.

    Attributes:
        b1: how near the parameters are to the mean.
        largest: the largest learning rate so far.
        weight: the sum of the weights of the steps so far.
        stepped: the parameters that the transform inside steps, in float32 at least.
        inner: the state of the transform inside.
    """

    b1: Tensor
    largest: Tensor
    weight: Tensor
    stepped: Any
    inner: Any


def schedule_free(make: Callable[[Hyper], Transform], lr: Hyper, b1: Number = 0.9, power: Number = 2.0) -> Transform:
    """Return the transform that steps by another one beside the parameters, and averages its steps.

    z are the parameters that the transform inside steps, x their mean, and gradients are taken between them, at the
    parameters y = (1 - b1) z + b1 x. In each update z = z + u, w = (largest learning rate so far)^power,
    c = w / (sum of all w), x = (1 - c) x + c z. The parameters of the training are y; x is what is to be evaluated:
    `evaluation_params`. (Defazio et al., 2024, https://arxiv.org/abs/2405.15682; as in optax.)

    Args:
        make: lr -> the transform inside, a whole optimizer without momentum, such as `optim.sgd`.
        lr: the learning rate, at least 0: constant, or with a warm-up alone.
        b1: in (0, 1), how near the mean the gradients are taken; what momentum is elsewhere.
        power: at least 0, by which steps of a warm-up count less.

    Raises:
        InvalidArgument: a number is out of range, or make gives no transform.

    See also: `evaluation_params`; `callbacks.validate_averages`, with which a fit validates with them.

    >>> from functrain import optim
    >>> free, params = schedule_free(optim.sgd, lr=0.5), {"w": torch.tensor([4.0])}
    >>> params, state = optim.step(free, params, free.init(params), params)  # of w^2 / 2
    >>> params, state = optim.step(free, params, state, params)
    >>> params, evaluation_params(state, params)
    ({'w': tensor([1.4500])}, {'w': tensor([1.5000])})
    """
    transform = made_by(make, nonnegative(lr=lr)["lr"])
    check_fixed(b1=b1, power=power)
    positive(b1=b1)
    if isinstance(b1, Tensor) or b1 >= 1:
        raise InvalidArgument(f"b1 must be a number in (0, 1), got {b1!r}")
    made = transform.made

    def init(params: Any) -> ScheduleFree:
        zero = torch.zeros((), dtype=torch.float64, device=device(params))
        wide = wide_copy(params)
        return ScheduleFree(zero + b1, zero, zero.clone(), wide, transform.init(params))

    def update(updates: Any, state: ScheduleFree, params: Any, context: Context) -> tuple[Any, ScheduleFree]:
        check_gradients(updates, params)
        check_state(state.stepped, params)
        stepped, inner = transform.update(updates, state.inner, params, context)
        happened = has_updated(transform, state.inner, inner)
        largest = torch.maximum(state.largest, torch.zeros_like(state.largest) + schedule.value(lr, context))
        weight = largest**power * (1 if happened is None else happened)
        total = state.weight + weight
        part = weight / torch.where(total > 0, total, 1.0)
        shown = tree.map(lambda u, p, z: _move(u, p, z, part, b1).to(u.dtype), stepped, params, state.stepped)
        z = tree.map(lambda z, u: z + u.to(z.dtype), state.stepped, stepped)
        return shown, ScheduleFree(state.b1, largest, total, z, inner)

    return Transform(
        init,
        update,
        {**transform.hypers, "lr": lr},
        made=None if made is None else lambda state: made(state.inner),
        needs=transform.needs,
        label=lambda: f"schedule_free({transform!r}, lr={reprs.short(lr)}, b1={reprs.short(b1)})",
    )


def _move(u: Tensor, y: Tensor, z: Tensor, part: Tensor, b1: float) -> Tensor:
    """Return the change of y where z moves by u, and x by a part of the way to z: x itself need not be kept."""
    part = part.to(z.real.dtype)
    return u.to(z.dtype) * (1 - b1 * (1 - part)) + (z - y) * part


def evaluation_params(opt_state: Any, params: Any) -> Any:
    """Return the parameters to evaluate with, where the optimizer's own are not those: the mean of `schedule_free`.

    Of `lookahead` they are its slow parameters. Parameters of which the state says nothing stay as they are.

    Args:
        opt_state: the state of the optimizer.
        params: the parameters that are trained.

    Raises:
        InvalidArgument: the state holds neither; then the parameters themselves are to be evaluated.

    >>> from functrain import optim
    >>> params = {"w": torch.tensor([4.0])}
    >>> evaluation_params(optim.schedule_free_sgd(lr=0.5).init(params), params)
    {'w': tensor([4.])}
    """
    states = search(opt_state, ScheduleFree, LookedAhead)
    if not states:
        raise InvalidArgument(
            "evaluation_params: the state is that of an optimizer whose parameters themselves are evaluated; it holds "
            "no state of schedule_free or lookahead"
        )
    own_paths(tree.paths(params))
    here = dict(tree.leaves_with_path(params))
    for state in states:
        # By path, for inside of `partition` the parameters of a group are a flat dict.
        shown = state.slow if isinstance(state, LookedAhead) else state.stepped
        for path, leaf in tree.leaves_with_path(shown):
            here[path] = _evaluate(state, here[path], leaf)
    return tree.unflatten(tree.structure(params), here.values())


def _evaluate(state: Any, p: Tensor, leaf: Tensor) -> Tensor:
    if isinstance(state, LookedAhead):
        return leaf.to(p.dtype)
    return lerp(leaf, p.to(leaf.dtype), (1 / state.b1).to(leaf.real.dtype)).to(p.dtype)
