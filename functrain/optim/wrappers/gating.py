"""Transforms that begin later: gates that a schedule opens, and gradual unfreezing."""

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import schedule, tree
from functrain.errors import InvalidArgument
from functrain.optim.context import Context
from functrain.optim.counting import has_updated, only_where
from functrain.optim.shapes import counter, device
from functrain.optim.transform import Transform, check_transform
from functrain.optim.wrappers.claiming import Where, check_where
from functrain.optim.wrappers.partitioning import partition
from functrain.records import reprs
from functrain.schedule import Hyper


@tree.node
class Gated:
    """The state of `gate`.

    Attributes:
        updates: updates that were made, an int64 scalar.
        inner: the state of the transform inside.
    """

    updates: Tensor
    inner: Any


def gate(is_open: Hyper, transform: Transform) -> Transform:
    """Return the transform that makes updates only while a schedule is above 0.

    While it is closed, the updates are zero and the state of the transform inside stays; so Adam's means begin when it
    opens. A milestone is exact: `gate(schedule.piecewise_constant([m / n], [0, 1]), transform)` opens in step m of n.

    Args:
        is_open: a schedule; or a number, as it may be. The hyperparameter "open".
        transform: the transform inside.

    Raises:
        InvalidArgument: is_open is no number or schedule, or the transform is none.

    See also: `unfreeze_gradually`, gates around groups of parameters.

    >>> from functrain import optim
    >>> later = gate(schedule.piecewise_constant([0.5], [0, 1]), optim.sgd(lr=0.5))
    >>> params = {"w": torch.ones(1)}
    >>> state = later.init(params)
    >>> [later.update(params, state, params, optim.Context(position=p))[0]["w"].item() for p in (0.4, 0.5)]
    [0.0, -0.5]
    """
    check_transform(transform)
    schedule.check_hyper("is_open", is_open)

    def init(params: Any) -> Gated:
        return Gated(counter(params), transform.init(params))

    def update(updates: Any, state: Gated, params: Any, context: Context) -> tuple[Any, Gated]:
        def inside() -> tuple[Any, Gated]:
            changed, inner = transform.update(updates, state.inner, params, context)
            happened = has_updated(transform, state.inner, inner)
            return changed, Gated(state.updates + (1 if happened is None else happened), inner)

        happens = torch.as_tensor(schedule.value(is_open, context), device=device(params)) > 0
        return only_where(happens, inside, updates, state)

    return Transform(
        init,
        update,
        {**transform.hypers, "open": is_open},
        made=lambda state: state.updates,
        needs=transform.needs,
        label=lambda: f"gate(is_open={reprs.short(is_open)}, transform={transform!r})",
    )


def unfreeze_gradually(transform: Transform, groups: Sequence[Where], milestones: Sequence[float]) -> Transform:
    """Return the transform that trains the last group from the beginning, and one more at each milestone.

    Each group has a state of its own, which begins when it is unfrozen; before, its parameters stay as they are,
    whatever their gradients hold. What works over all parameters, such as a clip by the global norm, works inside of
    each group.

    Args:
        transform: the optimizer of all groups.
        groups: what each group claims, from the input of the model to its head, as in `partition`: a pattern of dotted
            paths, several of them, a predicate of (path, leaf), or `...` for the rest.
        milestones: one fewer than groups, positions in (0, 1), ascending: at the first the last group but one joins.

    Raises:
        InvalidArgument: the transform is none, there is no group, or the milestones are not one fewer or do not ascend.
            In `init`, a leaf belongs to no group or to several, or a pattern matches nothing.

    Reference: Howard and Ruder, Universal language model fine-tuning for text classification, ACL 2018, section 3.3.

    >>> from functrain import optim
    >>> tuned = unfreeze_gradually(optim.sgd(0.5), ["0.*", "1.*"], [0.25])
    >>> params = {"0": {"bias": torch.ones(1)}, "1": {"bias": torch.ones(1)}}
    >>> state = tuned.init(params)
    >>> tuned.update(params, state, params, optim.Context(position=0.2))[0]
    {'0': {'bias': tensor([0.])}, '1': {'bias': tensor([-0.5000])}}
    >>> tuned.update(params, state, params, optim.Context(position=0.25))[0]
    {'0': {'bias': tensor([-0.5000])}, '1': {'bias': tensor([-0.5000])}}
    """
    check_transform(transform)
    for name, values in (("groups", groups), ("milestones", milestones)):
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise InvalidArgument(f"{name} must be a list, got {values!r}")
    groups, milestones = list(groups), list(milestones)
    if not groups or len(milestones) != len(groups) - 1:
        raise InvalidArgument(
            f"unfreeze_gradually needs one milestone fewer than groups, got {len(groups)} groups and "
            f"{len(milestones)} milestones"
        )
    schedule.interpolate(milestones, [0.0] * (len(milestones) + 2))  # refuses milestones that do not ascend
    names = [f"group {index}" for index in range(len(groups))]
    for name, where in zip(names, groups, strict=True):
        check_where(name, where)
    opening = [schedule.piecewise_constant([at], [0, 1]) for at in reversed(milestones)]
    parts = {name: gate(opens, transform) for name, opens in zip(names, opening, strict=False)}
    trained = partition({**parts, names[-1]: transform}, dict(zip(names, groups, strict=True)))
    return attrs.evolve(
        trained,
        hypers=transform.hypers,
        label=lambda: f"unfreeze_gradually({transform!r}, groups={reprs.short(groups)}, milestones={milestones!r})",
    )
