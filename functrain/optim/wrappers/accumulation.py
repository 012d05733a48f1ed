"""Gradient accumulation: several small batches count as one large one, exactly."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from functrain import arguments, tree
from functrain.errors import InvalidArgument, TreeMismatch
from functrain.optim.arithmetic import plus
from functrain.optim.context import Context
from functrain.optim.counting import has_updated, only_where
from functrain.optim.searching import search
from functrain.optim.shapes import counter, device, explain_mismatch
from functrain.optim.transform import Transform, check_transform


@tree.node
class Accumulated:
    """The state of `accumulate`.

    Attributes:
        batches: batches since the last flush, an int64 scalar.
        updates: updates that were made, an int64 scalar.
        weight: the sum of these batches' weights, a float64 scalar.
        loss: the weighted sum of their losses, a float64 scalar.
        total: the weighted sum of their gradients, in float32 at least.
        inner: the state of the transform inside.
    """

    batches: Tensor
    updates: Tensor
    weight: Tensor
    loss: Tensor
    total: Any
    inner: Any


def accumulate(k: int, transform: Transform | None = None) -> Any:
    """Return the transform that lets another one see the mean gradient of k batches, once every k batches.

    The mean is weighted by the batches' weights (`Context.weight`), so k batches give the gradient that one batch of
    all their examples would give, also when they are ragged or padded. In between, the updates are zero, and the
    transform inside does not run; nor does it where all weights of the k batches are zero. The loss and the weight that
    it sees are those of the k batches together; `Context.updates` is passed on as it is. See `updates_made`.
    Behind it in a chain a piece would see the loss of the last batch alone, so what looks at it belongs inside.

    A group may reach over the end of an epoch. Where training ends within a group, its fewer than k batches make no
    update: their sum stays in the state (`Accumulated.batches` says how many they are), from which a later run goes on.

    Args:
        k: how many batches, at least 1.
        transform: the transform inside; without it, a function that takes one is returned.

    Returns:
        A `Transform`; or without one, the function that makes it of one.

    Raises:
        InvalidArgument: k is no whole number of at least 1, the transform is none, or it needs `Context.evaluate` or
            `Context.examples`.

    >>> from functrain import optim
    >>> half = accumulate(2)(optim.scale(-1.0))
    >>> params = {"w": torch.zeros(1)}
    >>> between, state = half.update({"w": torch.tensor([1.0])}, half.init(params), params, optim.Context(weight=3.0))
    >>> done, state = half.update({"w": torch.tensor([5.0])}, state, params, optim.Context(weight=1.0))
    >>> between, done
    ({'w': tensor([0.])}, {'w': tensor([-2.])})
    """
    arguments.whole("k", k, of="batches")
    if transform is None:
        return partial(accumulate, k)
    check_transform(transform)
    if "evaluate" in transform.needs:
        raise InvalidArgument(
            f"accumulate: {transform!r} evaluates other parameters on the batch, and after {k} batches the others are "
            "gone; load larger batches instead"
        )
    if "examples" in transform.needs:
        raise InvalidArgument(
            f"accumulate: {transform!r} looks at single examples, and after {k} batches the others are gone; put "
            "clip_per_example before accumulate, and add_private_noise with a lot_size inside"
        )

    def update(updates: Any, state: Accumulated, params: Any, context: Context) -> tuple[Any, Accumulated]:
        summed = _add_batch(updates, state, context)
        full = summed.batches == k
        kept = tree.evolve(summed, batches=torch.where(full, torch.zeros_like(summed.batches), summed.batches))
        # Weights that sum to zero mean that only padding was seen: that is no update.
        return only_where(
            full & (summed.weight > 0), lambda: _flush(transform, updates, summed, params, context), updates, kept
        )

    return Transform(
        partial(_init, transform),
        update,
        transform.hypers,
        made=lambda state: state.updates,
        needs=transform.needs,
        label=lambda: f"accumulate(k={k}, transform={transform!r})",
    )


def refuse_sums(state: Any, message: str) -> None:
    """Raise `InvalidArgument` where a state holds that of `accumulate`, whose updates are not of the last batch alone.

    >>> from functrain import optim
    >>> refuse_sums(optim.adam().init({}), "it adds up")
    """
    if search(state, Accumulated):
        raise InvalidArgument(message)


def _init(transform: Transform, params: Any) -> Accumulated:
    tree.check_tensors(params, "the parameters")
    zero = torch.zeros((), dtype=torch.float64, device=device(params))
    total = tree.map(lambda p: torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)), params)
    return Accumulated(counter(params), counter(params), zero, zero.clone(), total, transform.init(params))


def _add_batch(updates: Any, state: Accumulated, context: Context) -> Accumulated:
    weight = context.weight
    return Accumulated(
        state.batches + 1,
        state.updates,
        state.weight + weight,
        state.loss + (0.0 if context.loss is None else context.loss * weight),
        _add_gradients(updates, state.total, weight),
        state.inner,
    )


def _add_gradients(updates: Any, total: Any, weight: Any) -> Any:
    try:
        return tree.map(lambda g, sum_: plus(sum_, g, weight), updates, total)
    except TreeMismatch:
        explain_mismatch(updates, updates, {"total": (updates, total)})
        raise


def _flush(transform: Transform, updates: Any, summed: Accumulated, params: Any, context: Context) -> tuple:
    mass = summed.weight + (summed.weight == 0)  # where nothing was seen this is computed too, and not used
    mean = tree.map(lambda g, total: (total / mass).to(g.dtype), updates, summed.total)
    loss = None if context.loss is None else summed.loss / mass
    seen = tree.evolve(context, loss=loss, weight=summed.weight)
    emitted, inner = transform.update(mean, summed.inner, params, seen)
    happened = has_updated(transform, summed.inner, inner)
    zero = torch.zeros_like
    return emitted, Accumulated(
        zero(summed.batches),
        summed.updates + (1 if happened is None else happened),
        zero(summed.weight),
        zero(summed.loss),
        tree.map(zero, summed.total),
        inner,
    )
