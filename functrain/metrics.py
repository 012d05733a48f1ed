"""Metrics: what is measured over many examples, as monoids of per-example values.

An accumulator is begun empty, updated by batches, merged with others and computed into a number in the end. The number
does not depend on how the examples were cut into batches, in which order they came, how they were padded (with zero
weight), or on which device or process each part was seen.

>>> acc = accuracy.init()
>>> acc = accuracy.update(acc, torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
>>> accuracy.compute(acc)
tensor(0.5000, dtype=torch.float64)
"""

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import arguments, foreign, tree, weighted
from functrain.errors import DtypeMismatch, InvalidArgument, ShapeMismatch
from functrain.records import pickling, reprs

__all__ = [
    "Mean",
    "Metric",
    "accuracy",
    "collection",
    "mean",
    "top_k",
]


def __dir__() -> list[str]:
    return __all__


@attrs.frozen(repr=False)
class Metric:
    """Pure functions that measure something of each example, and put together what was measured of many.

    The laws: `merge` is associative and commutative and `init()` is its identity; adding two batches equals merging the
    accumulators of each, and adding them as one batch; rows of zero weight change nothing.

    Attributes:
        init: (device=None) -> the accumulator that has seen nothing, a small tree of tensors on that device.
        measure: (prediction, target) -> the values, a tree of tensors (n, ...) with as many rows as examples.
        add: (accumulator, values, weight=None) -> the accumulator that has seen these values too; the weight has
            shape (n,), or of more leading axes of the values for elements, None counts each once.
        merge: (accumulator, accumulator) -> the accumulator that has seen what both have.
        compute: accumulator -> the number, a float64 scalar; NaN when nothing was seen.
        label: what it is called in its repr, such as "top_k(5)"; "" for its functions.

    See also: `mean`, which makes one of the per-example function alone. One that is no mean:

    >>> worst = Metric(
    ...     init=lambda device=None: torch.full((), float("-inf"), dtype=torch.float64, device=device),
    ...     measure=lambda prediction, target: (prediction - target).abs(),
    ...     add=lambda acc, values, weight=None: torch.maximum(
    ...         acc, (values if weight is None else values.masked_fill(weight == 0, float("-inf"))).max()
    ...     ),
    ...     merge=torch.maximum,
    ...     compute=lambda acc: acc,
    ... )
    >>> worst.compute(worst.update(worst.init(), torch.tensor([1.0, 5.0]), torch.tensor([1.5, 2.0])))
    tensor(3., dtype=torch.float64)
    """

    init: Callable[..., Any]
    measure: Callable[[Any, Any], Any]
    add: Callable[..., Any]
    merge: Callable[[Any, Any], Any]
    compute: Callable[[Any], Any]
    label: str = attrs.field(default="", kw_only=True, eq=False)

    def __repr__(self) -> str:
        return self.label or reprs.record(self)

    __reduce_ex__ = pickling.reduce
    __copy__ = __deepcopy__ = pickling.itself

    def update(self, acc: Any, prediction: Any, target: Any, weight: Tensor | None = None) -> Any:
        """Return the accumulator that has seen this batch too: what is measured of it, added."""
        return self.add(acc, self.measure(prediction, target), weight)


@tree.node
class Mean:
    """The accumulator of a weighted mean.

    Attributes:
        total: the sum of weight * value, a float64 scalar.
        weight: the sum of the weights, a float64 scalar.
    """

    total: Tensor
    weight: Tensor


def mean(f: Callable[[Any, Any], Tensor]) -> Metric:
    """Return the metric that is the weighted mean of a per-example function, such as any loss.

    Args:
        f: (prediction, target) -> values of shape (n, ...), numbers or booleans.

    Returns:
        A metric that measures the values and sums them in float64.

    Raises:
        ShapeMismatch: in `add`, when `f` gives a scalar or the weight does not fit the values.
        DtypeMismatch: in `add`, when `f` gives complex values.

    >>> error = mean(lambda prediction, target: (prediction - target).abs())
    >>> one = error.update(error.init(), torch.tensor([1.0, 2.0]), torch.zeros(2))
    >>> two = error.update(error.init(), torch.tensor([9.0, 5.0]), torch.zeros(2), weight=torch.tensor([1.0, 0.0]))
    >>> error.compute(error.merge(one, two))
    tensor(4., dtype=torch.float64)
    """
    arguments.function("f", f, "(prediction, target)")
    return Metric(_empty, f, _add, _merge, _quotient, label=f"mean({reprs.function(f)})")


def _quotient(acc: Mean) -> Tensor:
    return acc.total / acc.weight


def _empty(device: torch.device | str | None = None) -> Mean:
    # Two tensors, not one twice, so that the buffers of an accumulator can be reused (donated) separately.
    return Mean(*(torch.zeros((), dtype=torch.float64, device=device) for _ in range(2)))


def _add(acc: Mean, values: Tensor, weight: Tensor | None = None) -> Mean:
    total, mass = weighted.total(values, weight, torch.float64)
    return Mean(acc.total + total, acc.weight + mass)


def _merge(a: Mean, b: Mean) -> Mean:
    return Mean(a.total + b.total, a.weight + b.weight)


def _is_correct(prediction: Tensor, target: Tensor) -> Tensor:
    _check_labels(prediction, target)
    largest, chosen = prediction.max(-1)
    return (chosen == target) & (largest == largest)  # NaN, which is no number, is the largest of all and hits nothing


accuracy: Metric = attrs.evolve(mean(_is_correct), label="accuracy")
"""The part of the labels that the largest prediction hits: prediction (n, ..., classes), integer target (n, ...).

A prediction that holds NaN hits nothing. One class alone is refused, as nothing is chosen there; for yes or no take
`mean(lambda prediction, target: (prediction > 0) == target)`.
"""


def top_k(k: int) -> Metric:
    """Return the metric that is the part of the labels among the k largest predictions.

    Among equal predictions the choice is that of `torch.topk`. A prediction that holds NaN hits nothing.

    Args:
        k: how many predictions count, at least 1.

    Returns:
        A metric of a prediction (n, ..., classes) and an integer target (n, ...).

    Raises:
        InvalidArgument: k is no whole number of at least 1; in `measure`, when there are fewer than k classes.
        ShapeMismatch: in `measure`, when the target has not the prediction's shape without its classes, or there is
            one class alone.
        DtypeMismatch: in `measure`, when the target is no integers, or the prediction is complex.

    >>> metric = top_k(2)
    >>> acc = metric.update(metric.init(), torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]]), torch.tensor([2, 0]))
    >>> metric.compute(acc)
    tensor(0.5000, dtype=torch.float64)
    """
    arguments.whole("k", k)

    def is_among(prediction: Tensor, target: Tensor) -> Tensor:
        _check_labels(prediction, target)
        if k > prediction.shape[-1]:
            raise InvalidArgument(f"top_k({k}) needs at least {k} classes, got {prediction.shape[-1]}")
        values, indices = prediction.topk(k)
        return (indices == target.unsqueeze(-1)).any(-1) & (values[..., 0] == values[..., 0])

    return attrs.evolve(mean(is_among), label=f"top_k({k})")


def collection(metrics: Mapping[str, Metric]) -> Metric:
    """Return several metrics as one, whose accumulator and result are dicts by name: a product of monoids is a monoid.

    >>> both = collection({"accuracy": accuracy, "top_2": top_k(2)})
    >>> acc = both.update(both.init(), torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([2]))
    >>> {name: float(value) for name, value in both.compute(acc).items()}
    {'accuracy': 0.0, 'top_2': 1.0}
    """
    for name, metric in metrics.items():
        if not isinstance(metric, Metric):
            raise InvalidArgument(f"metrics[{name!r}] must be a Metric, got {foreign.in_words(metric)}")
    return Metric(
        lambda device=None: {name: metric.init(device) for name, metric in metrics.items()},
        lambda prediction, target: {name: metric.measure(prediction, target) for name, metric in metrics.items()},
        lambda acc, values, weight=None: {name: metrics[name].add(acc[name], values[name], weight) for name in metrics},
        lambda a, b: {name: metric.merge(a[name], b[name]) for name, metric in metrics.items()},
        lambda acc: {name: metric.compute(acc[name]) for name, metric in metrics.items()},
        label=f"collection({reprs.short(dict(metrics))})",
    )


def _check_labels(prediction: Tensor, target: Tensor) -> None:
    if target.shape != prediction.shape[:-1]:
        raise ShapeMismatch(
            f"target must have one label per prediction, shape {tuple(prediction.shape[:-1])} for a prediction of "
            f"shape {tuple(prediction.shape)} with its classes last; got {tuple(target.shape)}"
        )
    if prediction.shape[-1:] == (1,):
        raise ShapeMismatch(
            f"prediction has one class alone, shape {tuple(prediction.shape)}, so nothing is chosen; for yes or no "
            "take metrics.mean(lambda prediction, target: (prediction > 0) == target) of two equal shapes"
        )
    if target.is_floating_point() or target.is_complex():
        raise DtypeMismatch(f"target must be integer labels, got {target.dtype}; use target.long()")
    if prediction.is_complex():
        raise DtypeMismatch(f"prediction must be real numbers, got {prediction.dtype}; take its abs()")
