"""Skipping: gradients that are not finite make no update, so that one bad batch does not spoil the parameters."""

from typing import Any

import torch
from torch import Tensor

from functrain import tree
from functrain.optim.context import Context
from functrain.optim.counting import has_updated, only_where
from functrain.optim.shapes import counter, device
from functrain.optim.transform import Transform, check_transform


@tree.node
class Skipped:
    """The state of `skip_nonfinite`.

    Attributes:
        updates: updates that were made, an int64 scalar.
        skipped: how often there was none, because something was not finite, an int64 scalar.
        inner: the state of the transform inside.
    """

    updates: Tensor
    skipped: Tensor
    inner: Any


def skip_nonfinite(transform: Transform) -> Transform:
    """Return the transform that makes no update where a gradient holds NaN or an infinity.

    Then the updates are zero and the state of the transform inside stays; it is counted in `Skipped.skipped`.
    Otherwise it is the transform inside. Around `accumulate` it leaves out single batches, inside of it whole groups.

    Args:
        transform: the transform inside.

    Raises:
        InvalidArgument: the transform is none.

    See also: `updates_made`, by which a training loop counts the updates that were made.

    >>> from functrain import optim
    >>> careful, params = skip_nonfinite(optim.sgd(lr=0.5)), {"w": torch.ones(2)}
    >>> bad = {"w": torch.tensor([1.0, float("nan")])}
    >>> updates, state = careful.update(bad, careful.init(params), params)
    >>> updates, state.updates, state.skipped
    ({'w': tensor([0., 0.])}, tensor(0), tensor(1))
    """
    check_transform(transform)

    def init(params: Any) -> Skipped:
        return Skipped(counter(params), counter(params), transform.init(params))

    def update(updates: Any, state: Skipped, params: Any, context: Context) -> tuple[Any, Skipped]:
        finite = _all_finite(updates)

        def inside() -> tuple[Any, Skipped]:
            # Zeros where it is not used, so that a derivative of the choice is not 0 * NaN.
            safe = tree.map(lambda g: torch.where(finite, g, torch.zeros_like(g)), updates)
            changed, inner = transform.update(safe, state.inner, params, context)
            happened = has_updated(transform, state.inner, inner)
            return changed, Skipped(state.updates + (1 if happened is None else happened), state.skipped, inner)

        return only_where(finite, inside, updates, tree.evolve(state, skipped=state.skipped + 1))

    return Transform(
        init,
        update,
        transform.hypers,
        made=lambda state: state.updates,
        needs=transform.needs,
        label=lambda: f"skip_nonfinite({transform!r})",
    )


def _all_finite(updates: Any) -> Tensor:
    leaves = tree.leaves(updates)
    if not leaves:
        return torch.ones((), dtype=torch.bool, device=device(updates))
    return torch.stack([leaf.isfinite().all() for leaf in leaves]).all()
