"""What a transform may look at besides gradients, parameters and its own state."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from functrain import tree
from functrain.errors import InvalidArgument

Evaluate = Callable[[Any], tuple[Tensor, Any]]
"""params -> (loss, gradients) of one batch."""


@tree.node
class Examples:
    """The gradients of the examples of a batch, each by itself.

    Attributes:
        grads: a tree like the parameters, each leaf (n, *shape): of each example its gradient times its weight.
        count: the sum of the examples' weights, a scalar; without weights their number.
        mean: the gradient of the batch, the sum of `grads` divided by `count`.
    """

    grads: Any
    count: Tensor
    mean: Any


@tree.node
class Context:
    """Where training is, and what else this batch has to say; all of it has a default.

    A training step has `key`, `loss`, `evaluate`, `examples` and `loss_scale` for the transforms that say that they
    need them (see `Transform.needs`), and for no others.

    Attributes:
        position: the fraction of training done, in [0, 1], counted in batches.
        updates: updates of the parameters that the whole optimizer made, from 0; the same for all its pieces.
        epoch: epochs completed, with their fraction.
        step: batches done, from 0; where some batches make no update (see `updates_made`), `updates` is less.
        key: the random key of this step; a transform that draws folds in a name of its own.
        loss: the loss of this batch, a scalar.
        weight: the sum of the weights of this batch's examples, by which `accumulate` averages.
        evaluate: params -> (loss, gradients) of this very batch, with the same draws: for line searches, sharpness
            and products with the Hessian.
        examples: the gradient of each example of this batch.
        loss_scale: by what the loss was multiplied before it was differentiated; the gradients that come in have been
            divided by it again.

    >>> Context(position=0.5).updates
    0
    """

    position: float | Tensor = 0.0
    updates: int | Tensor = 0
    epoch: float | Tensor = 0.0
    step: int | Tensor = 0
    key: Tensor | None = None
    loss: float | Tensor | None = None
    weight: float | Tensor = 1.0
    evaluate: Evaluate | None = tree.static(default=None)
    examples: Examples | None = None
    loss_scale: Tensor | None = None


BEGINNING = Context()
"""The context of an update by hand that says nothing: the beginning of training."""

_WHAT = {
    "evaluate": "a function params -> (loss, gradients) of this batch",
    "examples": "the gradient of each example of this batch",
    "key": "the random key of this step",
    "loss": "the loss of this batch",
    "loss_scale": "the number by which the loss was multiplied before it was differentiated",
}


def check_needs(needs: Iterable[str]) -> tuple[str, ...]:
    """Return the names of what a transform needs of the context, each once, after checking that there is such a thing.

    >>> check_needs(["key", "loss", "key"])
    ('key', 'loss')
    """
    names = tuple(dict.fromkeys(needs))
    for name in names:
        if name not in _WHAT:
            raise InvalidArgument(f"needs must be of {', '.join(map(repr, _WHAT))}, got {name!r}")
    return names


def check_has(context: Context, needs: Iterable[str]) -> None:
    """Raise `InvalidArgument` unless the context has what a transform needs of it.

    >>> check_has(Context(loss=1.0), ["key"])
    Traceback (most recent call last):
        ...
    functrain.errors.InvalidArgument: this transform needs the random key of this step, and the context has none; pass \
optim.Context(key=...). A training step does that by itself
    """
    for name in needs:
        if getattr(context, name) is None:
            raise InvalidArgument(
                f"this transform needs {_WHAT[name]}, and the context has none; pass optim.Context({name}=...). A "
                "training step does that by itself"
            )
