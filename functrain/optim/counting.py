"""Two counts and no third: how many updates were made, where a call of a transform may make none."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functrain import tree
from functrain.dispatch_state import is_plain
from functrain.optim.transform import Transform, check_transform


def updates_made(transform: Transform, opt_state: Any) -> Tensor | None:
    """Return how many updates of the parameters a transform made up to this state; None where each call makes one.

    What one call made is the difference between the state after it and the state before it. A training loop counts
    `TrainState.updates` so, and gives that count to all pieces as `Context.updates`: schedules by updates, inside and
    outside of `accumulate`, read the updates that were made.

    Args:
        transform: the transform, the whole optimizer or a piece of it.
        opt_state: its state.

    >>> from functrain import optim
    >>> transform, params = optim.accumulate(2, optim.sgd(0.1)), {"w": torch.ones(1)}
    >>> state = transform.init(params)
    >>> for batch in range(5):
    ...     _, state = transform.update(params, state, params, optim.Context(updates=updates_made(transform, state)))
    >>> updates_made(transform, state), updates_made(optim.sgd(0.1), ((),))
    (tensor(2), None)
    """
    check_transform(transform)
    return None if transform.made is None else transform.made(opt_state)


def has_updated(transform: Transform, before: Any, after: Any) -> Tensor | None:
    """Return whether the call between two states made an update, a boolean scalar; None where each call makes one.

    >>> from functrain import optim
    >>> has_updated(optim.identity, (), ()) is None
    True
    """
    return None if transform.made is None else transform.made(after) != transform.made(before)


def only_where(happens: Tensor, f: Callable[[], tuple[Any, Any]], updates: Any, state: Any) -> tuple[Any, Any]:
    """Return f(), a pair (updates, state), where a condition holds; elsewhere updates of zero, and the state as it is.

    >>> only_where(torch.tensor(False), lambda: ({"w": torch.ones(1)}, ()), {"w": torch.ones(1)}, ())
    ({'w': tensor([0.])}, ())
    """
    if is_plain() and happens.device.type == "cpu" and not happens:
        return tree.zeros_like(updates), state  # spares the computation; the same bits as the choice below
    made, after = f()
    return (
        tree.map(lambda u: torch.where(happens, u, torch.zeros_like(u)), made),
        tree.map(lambda new, old: torch.where(happens, new, old), after, state),
    )
