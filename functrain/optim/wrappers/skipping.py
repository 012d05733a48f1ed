"""Skipping: what is not finite makes no update, so that one bad batch does not spoil the parameters."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from functrain import arguments, tree
from functrain.optim.context import Context
from functrain.optim.counting import has_updated, only_where
from functrain.optim.shapes import counter, device
from functrain.optim.transform import Transform, check_transform
from functrain.optim.wrappers.accumulation import refuse_sums


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
        finite = all_finite(updates)

        def inside() -> tuple[Any, Skipped]:
            safe = zeros_unless(finite, updates, transform)
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


@tree.node
class Rejected:
    """The state of `apply_if_finite`.

    Attributes:
        updates: updates that were made, an int64 scalar.
        rejected: how often there was none, because the update was not finite, an int64 scalar.
        in_a_row: how many calls up to the last one came to what is not finite, an int64 scalar.
        inner: the state of the transform inside.
    """

    updates: Tensor
    rejected: Tensor
    in_a_row: Tensor
    inner: Any


def apply_if_finite(most: int, transform: Transform | None = None) -> Any:
    """Return the transform that makes an update only where all of it is finite, and gives up after some in a row.

    Where the updates that the transform inside makes hold NaN or an infinity, there is no update and its state stays.
    After `most` such calls in a row the next one goes through whatever it holds, so that the loss shows what is wrong.

    It belongs inside of `accumulate`, where a group of batches that comes to what is not finite is left out. Around it
    the sum of the group would stay, and never be finite again.

    Args:
        most: how many calls in a row are let go by, at least 0.
        transform: the transform inside; without it, a function that takes one is returned.

    Raises:
        InvalidArgument: most is no whole number of at least 0, or the transform is none. In `init`, the transform
            accumulates.

    See also: `skip_nonfinite`, which looks at the gradients, and never gives up.

    >>> from functrain import optim
    >>> careful, params = apply_if_finite(5, optim.sgd(lr=0.5)), {"w": torch.ones(2)}
    >>> bad = {"w": torch.tensor([1.0, float("nan")])}
    >>> updates, state = careful.update(bad, careful.init(params), params)
    >>> updates, state.updates, state.rejected
    ({'w': tensor([0., 0.])}, tensor(0), tensor(1))
    """
    arguments.whole("most", most, 0, of="calls")
    if transform is None:
        return partial(apply_if_finite, most)
    check_transform(transform)

    def init(params: Any) -> Rejected:
        inner = transform.init(params)
        refuse_sums(
            inner,
            f"apply_if_finite: {transform!r} adds gradients up, and where their sum is not finite it would stay so, "
            "for a call that makes no update leaves the state; put it inside, accumulate(k, apply_if_finite(most, "
            "...)), or skip_nonfinite around, which leaves out single batches",
        )
        return Rejected(counter(params), counter(params), counter(params), inner)

    def update(updates: Any, state: Rejected, params: Any, context: Context) -> tuple[Any, Rejected]:
        changed, inner = transform.update(updates, state.inner, params, context)
        finite = all_finite(changed)
        in_a_row = torch.where(finite, torch.zeros_like(state.in_a_row), state.in_a_row + 1)
        accepted = finite | (in_a_row > most)
        happened = has_updated(transform, state.inner, inner)
        after = Rejected(state.updates + (1 if happened is None else happened), state.rejected, in_a_row, inner)
        before = tree.evolve(state, rejected=state.rejected + 1, in_a_row=in_a_row)
        return only_where(accepted, lambda: (changed, after), updates, before)

    return Transform(
        init,
        update,
        transform.hypers,
        made=lambda state: state.updates,
        needs=transform.needs,
        label=lambda: f"apply_if_finite(most={most}, transform={transform!r})",
    )


def zeros_unless(finite: Tensor, updates: Any, transform: Transform) -> Any:
    """Return the updates, zeros where they are not used, so that a derivative of the choice is not 0 * NaN.

    A transform that looks at single examples passes them by, and must see them as they are.

    >>> from functrain import optim
    >>> zeros_unless(torch.tensor(False), {"w": torch.ones(1)}, optim.identity)
    {'w': tensor([0.])}
    """
    if "examples" in transform.needs:
        return updates
    return tree.map(lambda g: torch.where(finite, g, torch.zeros_like(g)), updates)


def all_finite(updates: Any) -> Tensor:
    """Return whether no leaf holds NaN or an infinity, a boolean scalar.

    >>> all_finite({"w": torch.tensor([1.0, float("nan")])})
    tensor(False)
    """
    leaves = tree.leaves(updates)
    if not leaves:
        return torch.ones((), dtype=torch.bool, device=device(updates))
    return torch.stack([leaf.isfinite().all() for leaf in leaves]).all()
