"""The tally: the accumulators of the loss and the metrics of a phase, and how they are added to, batch by batch."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from functrain import metrics, tree
from functrain.dispatch_state import is_plain
from functrain.late import Late
from functrain.metrics import Metric
from functrain.train.learner import Learner

Measured = tuple[dict[str, Any], Tensor | None]
"""What was measured of a batch: the values of each example by name, and the weights of the examples."""

LOSS = metrics.mean(lambda losses, _target: losses)
"""The metric of the loss, whose values the step has computed already."""

MOST_BATCHES, MOST_BYTES = 8, 1 << 19
"""How many batches wait to be added at once, and the memory of one of their values that is no trouble to keep."""


@tree.node
class Tally(Late):
    """What was measured so far.

    Attributes:
        accumulators: those of "loss" and of each metric, by name.
    """

    accumulators: dict[str, Any]


def empty_tally(learner: Learner, device: torch.device) -> Tally:
    """Return the tally before any batch."""
    return Tally(_together(learner).init(device))


def measured(learner: Learner, losses: Tensor, prediction: Any, target: Any) -> dict[str, Any]:
    """Return the values of each example: the losses, and what each metric measures, by name."""
    found = {name: metric.measure(prediction, target) for name, metric in learner.metrics.items()}
    return {"loss": losses, **found}


def added(learner: Learner, tally: Tally, values: dict[str, Any], weight: Tensor | None) -> Tally:
    """Return the tally with the values of one batch added.

    In plain Python they wait until there are several batches, or until somebody looks at the tally, and are then added
    as one batch: by the laws of metrics that gives the same, and it takes a fraction of the time.
    """
    batch = (values, weight)
    if not (is_plain() and _may_wait(values, values["loss"])):
        return _summed(learner, tally, (batch,))
    first, batches = tally, (batch,)
    before: Any = tally.pending()
    if before is not None:
        _, first, waiting = before.args  # of `_summed`
        batches = (*waiting, batch)
    summed = partial(_summed, learner, first, batches)
    return summed() if len(batches) == MOST_BATCHES else Tally.late(summed)


def _summed(learner: Learner, tally: Tally, batches: tuple[Measured, ...]) -> Tally:
    accumulators, metric = tally.accumulators, _together(learner)
    for values, weight in _joined(batches):
        accumulators = metric.add(accumulators, values, weight)
    return Tally(accumulators)


def _may_wait(values: dict[str, Any], losses: Tensor) -> bool:
    """Return whether all have a row an example, and keep no large memory: one may be a view of a large prediction."""
    try:
        return False not in [
            type(value) is Tensor
            and (value.shape == losses.shape or value.shape[:1] == losses.shape[:1])
            and value.untyped_storage().nbytes() <= MOST_BYTES
            for value in values.values()
        ]
    except NotImplementedError:  # a sparse one has no such memory
        return False


def _joined(batches: tuple[Measured, ...]) -> Iterable[Measured]:
    """Return the batches as one batch if they have one form, as they are if not."""
    (first, weight), *others = batches
    if not others or weight is not None or False in [_is_like(first, *other) for other in others]:
        return batches
    return [({name: torch.cat([values[name] for values, _ in batches]) for name in first}, None)]


def _is_like(first: dict[str, Tensor], values: dict[str, Tensor], weight: Tensor | None) -> bool:
    return weight is None and False not in [
        value.shape == first[name].shape and value.dtype == first[name].dtype for name, value in values.items()
    ]


def computed(learner: Learner, tally: Tally) -> dict[str, Tensor]:
    """Return the loss and the metrics, by name."""
    return _together(learner).compute(tally.accumulators)


def _together(learner: Learner) -> Metric:
    return metrics.together({"loss": LOSS, **learner.metrics})
