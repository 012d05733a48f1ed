"""Losses that are scaled before they are differentiated, so that small gradients are no zeros in float16."""

from typing import Any

import torch
from torch import Tensor

from functrain import arguments, tree
from functrain.errors import InvalidArgument
from functrain.optim.context import Context
from functrain.optim.counting import has_updated, only_where
from functrain.optim.searching import search
from functrain.optim.shapes import counter, device
from functrain.optim.transform import Transform, check_transform
from functrain.optim.wrappers.skipping import all_finite, zeros_unless
from functrain.schedule.hyper import is_number


@tree.node
class LossScaled:
    """The state of `dynamic_loss_scale`.

    Attributes:
        scale: by what the loss of the next batch is multiplied, a float32 scalar.
        good: batches in a row whose gradients were finite, an int64 scalar.
        updates: updates that were made, an int64 scalar.
        skipped: how often there was none, because a gradient was not finite, an int64 scalar.
        inner: the state of the transform inside.
    """

    scale: Tensor
    good: Tensor
    updates: Tensor
    skipped: Tensor
    inner: Any


def dynamic_loss_scale(
    transform: Transform, initial: float = 2.0**16, growth: float = 2.0, backoff: float = 0.5, every: int = 2000
) -> Transform:
    """Return the transform that has the loss scaled by as much as its gradients bear in float16.

    A training step multiplies the loss by the scale before it is differentiated, and divides the gradients by it
    afterwards, in float32 at least; so losses, logs and what callbacks see of gradients are unscaled. Where a gradient
    holds NaN or an infinity there is no update, the state of the transform inside stays, and the scale is multiplied
    by `backoff`; after `every` finite ones in a row, by `growth`, where that is finite. As torch.amp.GradScaler does.
    Powers of 2 leave the digits of gradients as they are. (Micikevicius et al., 2018,
    https://arxiv.org/abs/1710.03740.)

    Args:
        transform: the whole optimizer inside.
        initial: above 0, the first scale.
        growth: above 1.
        backoff: in (0, 1).
        every: at least 1.

    Raises:
        InvalidArgument: an argument is out of range. In `update`, the context has no `loss_scale`: by hand, multiply
            the loss by `loss_scale(opt_state)`, divide the gradients by it, and pass it.

    See also: `skip_nonfinite`, which scales nothing; `updates_made`, by which a training loop counts.

    >>> from functrain import optim
    >>> scaled, params = dynamic_loss_scale(optim.sgd(lr=0.5)), {"w": torch.ones(2)}
    >>> state, bad = scaled.init(params), {"w": torch.tensor([1.0, float("inf")])}
    >>> updates, state = scaled.update(bad, state, params, optim.Context(loss_scale=loss_scale(state)))
    >>> updates, state.scale, state.skipped
    ({'w': tensor([0., 0.])}, tensor(32768.), tensor(1))
    """
    check_transform(transform)
    arguments.whole("every", every, of="batches")
    for name, number, low, high in (
        ("initial", initial, 0.0, torch.finfo(torch.float32).max),
        ("growth", growth, 1.0, torch.finfo(torch.float32).max),
        ("backoff", backoff, 0.0, 1.0),
    ):
        if not is_number(number) or not low < number < high:
            raise InvalidArgument(f"{name} must be a number above {low:g} and below {high:g}, got {number!r}")

    def init(params: Any) -> LossScaled:
        scale = torch.full((), initial, dtype=torch.float32, device=device(params))
        return LossScaled(scale, counter(params), counter(params), counter(params), transform.init(params))

    def update(updates: Any, state: LossScaled, params: Any, context: Context) -> tuple[Any, LossScaled]:
        finite = all_finite(updates)
        less = tree.evolve(
            state,
            scale=(state.scale * backoff).clamp(min=torch.finfo(torch.float32).tiny),
            good=torch.zeros_like(state.good),
            skipped=state.skipped + 1,
        )

        def inside() -> tuple[Any, LossScaled]:
            safe = zeros_unless(finite, updates, transform)
            changed, inner = transform.update(safe, state.inner, params, context)
            happened = has_updated(transform, state.inner, inner)
            made = state.updates + (1 if happened is None else happened)
            return changed, LossScaled(*_grow(state), made, state.skipped, inner)

        return only_where(finite, inside, updates, less)

    def _grow(state: LossScaled) -> tuple[Tensor, Tensor]:
        good = state.good + 1
        larger = state.scale * growth
        full = good == every
        scale = torch.where(full & larger.isfinite(), larger, state.scale)
        return scale, torch.where(full, torch.zeros_like(good), good)

    return Transform(
        init,
        update,
        transform.hypers,
        made=lambda state: state.updates,
        needs=(*transform.needs, "loss_scale"),
        label=lambda: f"dynamic_loss_scale({transform!r})",
    )


def loss_scale(opt_state: Any) -> Tensor:
    """Return by what the loss of the next batch is to be multiplied, from the state of `dynamic_loss_scale` in a state.

    Args:
        opt_state: the state of the optimizer.

    Raises:
        InvalidArgument: there is none, or there are several.

    >>> from functrain import optim
    >>> loss_scale(dynamic_loss_scale(optim.sgd(lr=0.5), initial=256.0).init({}))
    tensor(256.)
    """
    states = search(opt_state, LossScaled)
    if len(states) != 1:
        raise InvalidArgument(
            f"loss_scale: an optimizer has one dynamic_loss_scale, around all of it; this state has {len(states)}"
        )
    return states[0].scale
