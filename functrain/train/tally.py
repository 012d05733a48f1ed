"""The tally: the accumulators of the loss and the metrics of a phase, and how they are added to, batch by batch."""

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import metrics, tree
from functrain.dispatch_state import is_plain
from functrain.errors import DuplicateName, InvalidArgument
from functrain.metrics import Metric

Values = tuple[dict[str, Any], Tensor | None]
"""What was measured of a batch: the values of each example by name, and the weights of the examples."""

LOSS = metrics.mean(lambda losses, _target: losses)
"""The metric of the loss, whose values the step has computed already."""

MOST_BATCHES, MOST_BYTES = 8, 1 << 19
"""How many batches wait to be added at once, and the memory of one of their values that is no trouble to keep."""


COLUMNS = ("epoch", "step")
"""The columns of a record beside what was measured: the name of no metric, log or part of a loss."""


def check_name(name: Any, what: str, others: Iterable[str] = ()) -> None:
    """Raise unless a value can be recorded by a name: a string, no column of a record, and none of some others.

    >>> check_name("accuracy", "metrics")
    """
    if not isinstance(name, str) or not name:
        raise InvalidArgument(f"{what}: a name must be a string, got {name!r}")
    if name in COLUMNS:
        raise DuplicateName(f"{what}: {name!r} is the name of a column that every record has; choose another name")
    if name in others:
        raise DuplicateName(
            f"{what}: {name!r} is the name of a hyperparameter on a schedule, which records show; choose another name"
        )


@tree.node
class Tally:
    """What was measured so far.

    Attributes:
        added: the accumulators of "loss" and of each metric, by name, before the batches that wait.
        waiting: the values and weights of up to 7 batches that are added together with the next ones: in plain Python
            alone, where adding several batches as one takes a fraction of the time.
    """

    added: Any
    waiting: tuple[Values, ...] = ()


@tree.node
class Measured:
    """A log of a step of one's own that is no mean: it is merged over the batches, and computed in the end.

    Attributes:
        metric: a `Metric`, whose `merge` and `compute` are used.
        accumulator: its accumulator that has seen this batch.
    """

    metric: Metric = tree.static()
    accumulator: Any = attrs.field()


def measured_by(named: dict[str, Metric]) -> Metric:
    """Return the loss and the metrics as one metric, whose values the step has computed."""
    return metrics.collection({"loss": LOSS, **named})


def add(metric: Metric, tally: Tally, values: dict[str, Any], weight: Tensor | None, waits: bool = False) -> Tally:
    """Return the tally with the values of one batch added, at once or, if they may wait, with those of later ones.

    They may in a step that is never compiled. One that is keeps the structure of its carry, also where it runs as
    plain Python for once: while anomalies are looked for, or hooks see what is kept for gradients.

    Groups of waiting batches end at the same batches whatever the chunks and wherever a run was resumed, as what waits
    is part of the tally.
    """
    batch = (values, weight)
    if not (waits and is_plain() and _may_wait(values)):
        return Tally(metric.add(sum_up(metric, tally).added, values, weight))
    waiting = Tally(tally.added, (*tally.waiting, batch))
    return sum_up(metric, waiting) if len(waiting.waiting) == MOST_BATCHES else waiting


def sum_up(metric: Metric, tally: Tally) -> Tally:
    """Return the tally with no batch waiting."""
    if not tally.waiting:
        return tally
    accumulators = tally.added
    for values, weight in _join(tally.waiting):
        accumulators = metric.add(accumulators, values, weight)
    return Tally(accumulators)


def _may_wait(values: dict[str, Any]) -> bool:
    """Return whether all have a row an example, and keep no large memory: one may be a view of a large prediction."""
    losses = values["loss"]
    try:
        return False not in [
            type(value) is Tensor
            and (value.shape == losses.shape or value.shape[:1] == losses.shape[:1])
            and value.untyped_storage().nbytes() <= MOST_BYTES
            for value in values.values()
        ]
    except (NotImplementedError, AttributeError):  # a sparse one has no such memory, a number has no shape
        return False


def _join(batches: tuple[Values, ...]) -> Iterable[Values]:
    """Return the batches as one batch if they are of one shape, as they are if not."""
    (first, weight), *others = batches
    if not others or weight is not None or False in [_is_like(first, *other) for other in others]:
        return batches
    return [({name: torch.cat([values[name] for values, _ in batches]) for name in first}, None)]


def _is_like(first: dict[str, Tensor], values: dict[str, Tensor], weight: Tensor | None) -> bool:
    return weight is None and False not in [
        value.shape == first[name].shape and value.dtype == first[name].dtype for name, value in values.items()
    ]


# The logs of steps of one's own, and of `ft.log`: each step returns them, and the loop merges them one by one.


def merge_logs(so_far: Mapping[str, Any], logs: dict[str, Any], weights: Tensor) -> Mapping[str, Any]:
    """Return what was logged so far, with the logs of some more batches.

    Args:
        so_far: by name the `Mean` of scalars, or `Measured`; so a file, which names no metrics, says which it is.
        logs: by name a tensor of one row a batch, or a `Measured` whose accumulator has one row a batch.
        weights: the weight of each batch, shape (batches,).

    Raises:
        InvalidArgument: a name was logged as a scalar before, and is `Measured` now, or the reverse.
    """
    for name, rows in logs.items():
        log = rows if isinstance(rows, Measured) else Measured(LOSS, _as_means(rows, weights))
        accumulator = _accumulated(name, so_far, log)
        for k in range(len(weights)):  # one by one, in every chunking
            one = tree.map(lambda column, k=k: column[k], log.accumulator)
            accumulator = one if accumulator is None else log.metric.merge(accumulator, one)
        if accumulator is not None:
            so_far = {**so_far, name: accumulator if log.metric is LOSS else Measured(log.metric, accumulator)}
    return so_far


def _accumulated(name: str, so_far: Mapping[str, Any], log: Measured) -> Any:
    """Return the accumulator of what was logged by a name so far, or None."""
    if name not in so_far:
        return None
    before = so_far[name]
    if isinstance(before, Measured) is (log.metric is LOSS):
        ways = ("Measured", "a scalar") if isinstance(before, Measured) else ("a scalar", "Measured")
        raise InvalidArgument(
            f"the step logged {name!r} as {ways[0]} in earlier batches, and logs it as {ways[1]} now; log a name one "
            "way in all batches, or choose another name"
        )
    return before.accumulator if isinstance(before, Measured) else before


def _as_means(values: Tensor, weights: Tensor) -> metrics.Mean:
    weights = weights.double()
    return metrics.Mean(torch.where(weights == 0, 0.0, values.double() * weights), weights)


def value_of(log: Any) -> Tensor:
    """Return the value of a log over its batch.

    >>> value_of(torch.tensor(3.0))
    tensor(3.)
    """
    return log.metric.compute(log.accumulator) if isinstance(log, Measured) else log


def without(log: Any, out: Tensor) -> Any:
    """Return the log, or where a condition holds, what adds nothing to others; a scalar's weight sees to that."""
    if not isinstance(log, Measured):
        return log
    empty = log.metric.init(out.device)
    return Measured(log.metric, tree.map(lambda none, some: torch.where(out, none, some), empty, log.accumulator))


def compute_logs(so_far: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the values of what was logged, by name."""
    return {name: LOSS.compute(log) if isinstance(log, metrics.Mean) else value_of(log) for name, log in so_far.items()}
