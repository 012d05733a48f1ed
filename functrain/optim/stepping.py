"""From updates to parameters: what a training step does with gradients."""

from typing import Any

from functrain import tree
from functrain.errors import DtypeMismatch, InvalidArgument, TreeMismatch
from functrain.optim.arithmetic import add_to_param
from functrain.optim.context import BEGINNING, Context, check_has
from functrain.optim.shapes import check_gradients, check_kinds
from functrain.optim.transform import Transform, check_transform, explain_failure
from functrain.schedule import Number


def step(
    transform: Transform, grads: Any, opt_state: Any, params: Any, context: Context = BEGINNING
) -> tuple[Any, Any]:
    """Return the parameters after one update, and the next optimizer state.

    This is `transform.update` and then `apply_updates`, by the transform's fast path where it has one.

    Args:
        transform: the optimizer.
        grads: the gradients, a tree like the parameters.
        opt_state: what `transform.init(params)` or the step before returned.
        params: the parameters.
        context: how far training is; may be left out where the optimizer needs nothing of it.

    Raises:
        TreeMismatch: gradients, parameters and state do not fit.
        InvalidArgument: the context lacks what the transform needs, is none, or the transform is none.

    >>> import torch
    >>> from functrain import optim
    >>> sgd, params = optim.sgd(lr=0.5), {"w": torch.tensor([4.0])}
    >>> params, opt_state = step(sgd, {"w": torch.tensor([2.0])}, sgd.init(params), params)
    >>> params
    {'w': tensor([3.])}
    """
    if not isinstance(transform, Transform) or not isinstance(context, Context):
        _check_arguments(transform, context)
    if transform.fused is not None:
        if transform.needs:
            check_has(context, transform.needs)
        try:
            return transform.fused(grads, opt_state, params, context)
        except Exception as error:
            explain_failure(transform, error, grads, opt_state, params)
            raise
    updates, opt_state = transform.update(grads, opt_state, params, context)
    return apply_updates(params, updates), opt_state


def _check_arguments(transform: Any, context: Any) -> None:
    check_transform(transform)
    raise InvalidArgument(f"context must be an optim.Context, such as optim.Context(position=0.5), got {context!r}")


def apply_updates(params: Any, updates: Any) -> Any:
    """Return the parameters with the updates added, each in its parameter's dtype.

    Raises:
        TreeMismatch: the updates have not the structure and the shapes of the parameters.
        DtypeMismatch: an update is complex where its parameter is real.

    >>> import torch
    >>> apply_updates({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([0.5, -0.5])})
    {'w': tensor([1.5000, 1.5000])}
    """
    return add_scaled(params, updates, 1, "the updates")


def add_scaled(params: Any, updates: Any, factor: Number, what: str) -> Any:
    """Return the tree of params + factor * updates, each in its parameter's dtype; `what` names the updates in errors.

    >>> import torch
    >>> add_scaled({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([2.0, 2.0])}, -0.5, "the gradients")
    {'w': tensor([0., 1.])}
    """
    try:
        return tree.map(lambda p, u: add_to_param(p, u, factor), params, updates)
    except (TreeMismatch, DtypeMismatch):
        check_gradients(updates, params, what)
        check_kinds(updates, params, what)
        raise
