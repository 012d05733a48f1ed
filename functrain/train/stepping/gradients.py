"""The differentiated part of a step: as a stage around stages, and the quick way of the usual one."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from functrain import losses, tree
from functrain.engine.transforms.gradients import differentiate, pull_back
from functrain.errors import DuplicateName
from functrain.train.tally import LOSS, Measured

Stage = Callable[[Any], Any]


def differentiate_loss(inner: Stage) -> Stage:
    """Return the stage that runs the inner stages and differentiates their loss by the parameters."""

    def stage(step: Any) -> Any:
        def loss_of(params: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
            begun = tree.evolve(step, state=tree.evolve(step.state, params=params))
            old, after = vars(begun), inner(begun)
            changed = {name: value for name, value in vars(after).items() if value is not old[name]}
            # The state holds the parameters that are being differentiated; it must not leave this function, and no
            # handler may replace it here.
            changed.pop("state", None)
            return after.loss, changed

        (_, changed), grads = differentiate(loss_of, (step.state.params,), has_aux=True)
        return tree.evolve(step, **changed, grads=grads)

    return stage


def differentiate_mean(apply: Callable[[Any, Any], tuple[Any, Any]], loss: Callable[[Any, Any], Tensor]) -> Stage:
    """Return `differentiate_loss(chain(forward, compared(loss), mean_loss))`, in a fraction of the time.

    Nobody looks at the steps in between, so there are none; and the mean needs no place in the graph.

    Args:
        apply: a function of the step and parameters that gives (prediction, buffers).
        loss: (prediction, target) -> one value per example or element.
    """

    def stage(step: Any) -> Any:
        batch = step.batch

        def losses_of(params: dict[str, Any]) -> tuple[Tensor, Tensor | float, Any]:
            prediction, buffers = apply(step, params)
            compared = compare(loss(prediction, batch.target), batch.weight)
            values = compared["losses"]
            return (
                values,
                losses.shares(values, batch.weight),
                {"prediction": prediction, "buffers": buffers, **compared},
            )

        new, grads = pull_back(losses_of, step.state.params)
        if parts := new.pop("parts"):
            new["logged"] = with_parts(step, parts)
        return tree.evolve(step, **new, grads=grads)

    return stage


def with_parts(step: Any, parts: dict[str, Any]) -> dict[str, Any]:
    """Return what a step has logged, with the parts of its loss.

    Raises:
        DuplicateName: a handler has logged a value of the name already, or a metric has it.
    """
    taken = [name for name in parts if name in step.logged or name in step.tally.added]
    if taken:
        raise DuplicateName(
            f"the loss has a part {taken[0]!r}, and so is a metric called, or a value that a handler of begin_step or "
            "after_pred logs; rename one of them"
        )
    return {**step.logged, **parts}


def compare(result: Any, weight: Tensor | None) -> dict[str, Any]:
    """Return the values of a loss that train as "losses", and as "parts" what else it named, measured over the batch.

    >>> import torch
    >>> compare(torch.ones(2), None)
    {'losses': tensor([1., 1.]), 'parts': {}}
    """
    if isinstance(result, Tensor):
        return {"losses": result, "parts": {}}
    named = losses.by_name(result)
    values = named.pop("loss")
    parts = {n: Measured(LOSS, LOSS.add(LOSS.init(p.device), p.detach(), weight)) for n, p in named.items()}
    return {"losses": values, "parts": parts}
