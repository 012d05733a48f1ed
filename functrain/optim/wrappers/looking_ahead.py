"""Lookahead: k steps forward, one step back."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from functrain import arguments, schedule, tree
from functrain.optim.arithmetic import plus
from functrain.optim.context import Context
from functrain.optim.counting import has_updated
from functrain.optim.hypers import nonnegative
from functrain.optim.shapes import counter, wide_copy
from functrain.optim.stepping import apply_updates
from functrain.optim.transform import Transform, check_transform
from functrain.records import reprs
from functrain.schedule import Hyper


@tree.node
class LookedAhead:
    """The state of `lookahead`.

    Attributes:
        steps: updates since the last step back, an int64 scalar.
        slow: the slow parameters, in float32 at least.
        inner: the state of the transform inside.
    """

    steps: Tensor
    slow: Any
    inner: Any


def lookahead(k: int, slow_lr: Hyper = 0.5, transform: Transform | None = None) -> Any:
    """Return the transform that after every k updates goes back part of the way to where it was before them.

    Slow parameters s begin as the parameters; after k updates of the transform inside, s = s + slow_lr * (p - s) and
    p = s. The state of the transform inside stays. What is to be evaluated is `LookedAhead.slow`, or the parameters
    after a step back.

    Args:
        k: how many updates, at least 1; batches that make none do not count.
        slow_lr: at least 0, how much of the way is kept; the hyperparameter "slow_lr".
        transform: the whole optimizer inside; without it, a function that takes one is returned.

    Returns:
        A `Transform`; or without one, the function that makes it of one.

    Raises:
        InvalidArgument: k is no whole number of at least 1, slow_lr is out of range, or the transform is none.

    Reference: Zhang et al., Lookahead optimizer: k steps forward, 1 step back, NeurIPS 2019 (arXiv:1907.08610).

    >>> from functrain import optim
    >>> ahead, params = lookahead(2, 0.5, optim.sgd(1.0)), {"w": torch.zeros(1)}
    >>> state = ahead.init(params)
    >>> for _ in range(2):
    ...     params, state = optim.step(ahead, {"w": torch.ones(1)}, state, params)
    >>> params
    {'w': tensor([-1.])}
    """
    arguments.whole("k", k, of="updates")
    hypers = nonnegative(slow_lr=slow_lr)
    if transform is None:
        return partial(lookahead, k, slow_lr)
    check_transform(transform)
    made = transform.made

    def init(params: Any) -> LookedAhead:
        wide = wide_copy(params)
        return LookedAhead(counter(params), wide, transform.init(params))

    def update(updates: Any, state: LookedAhead, params: Any, context: Context) -> tuple[Any, LookedAhead]:
        ahead, inner = transform.update(updates, state.inner, params, context)
        happened = has_updated(transform, state.inner, inner)
        steps = state.steps + (1 if happened is None else happened)
        back = steps == k
        part = schedule.value(slow_lr, context)
        reached = apply_updates(params, ahead)
        slow = tree.map(lambda s, p: torch.where(back, plus(s, p.to(s.dtype) - s, part), s), state.slow, reached)
        emitted = tree.map(lambda u, p, s: torch.where(back, (s - p.to(s.dtype)).to(u.dtype), u), ahead, params, slow)
        return emitted, LookedAhead(torch.where(back, torch.zeros_like(steps), steps), slow, inner)

    return Transform(
        init,
        update,
        {**transform.hypers, **hypers},
        made=None if made is None else lambda state: made(state.inner),
        needs=transform.needs,
        label=lambda: f"lookahead(k={k}, slow_lr={reprs.short(slow_lr)}, transform={transform!r})",
    )
