"""The laws of losses and metrics."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import torch
from torch import Tensor

from functrain import tree
from functrain.metrics import Metric
from functrain.testing.functions import check_jit, check_pure
from functrain.testing.laws import Laws, break_law, hold, same


def check_loss(loss: Callable, prediction: Any, target: Any, *, skip: Collection[str] = ()) -> tuple[str, ...]:
    """Check the laws of a loss, and return their names.

    - "pure": it changes neither the prediction nor the target, and gives the same bits again.
    - "values": one value an example, or more along further axes.
    - "rows": the value of an example does not depend on the other examples.
    - "jit": the same eager and compiled, with its gradients by the prediction.
    - "gradient": the gradient is finite, and that of an example touches no other example.

    Args:
        loss: (prediction, target) -> values.
        prediction: a tree of tensors of at least two rows.
        target: a tree of tensors of as many rows.
        skip: the names of laws that it need not obey.

    Raises:
        LawBroken: a law does not hold; the message says which, and where.

    >>> from functrain import losses
    >>> check_loss(losses.mse, torch.randn(4, 3), torch.randn(4, 3))
    ('pure', 'values', 'rows', 'jit', 'gradient')
    """
    return hold(_name(loss), loss_laws(loss, prediction, target), skip)


def loss_laws(loss: Callable, prediction: Any, target: Any) -> Laws:
    """Return the laws of `check_loss` by name, to be checked one by one.

    >>> from functrain import losses
    >>> loss_laws(losses.mse, torch.randn(4, 3), torch.randn(4, 3))["rows"]()
    """
    return {
        "pure": lambda: _ignore(check_pure(loss, prediction, target)),
        "values": partial(_values, loss, prediction, target),
        "rows": partial(_rows, loss, prediction, target),
        "jit": lambda: check_jit(lambda prediction: loss(prediction, target), prediction),
        "gradient": partial(_gradient, loss, prediction, target),
    }


def _name(function: Any) -> str:
    inner = function.func if isinstance(function, partial) else function
    return getattr(inner, "__name__", type(function).__name__)


def _ignore(_result: Any) -> None:
    return None


def _count(value: Any) -> int:
    return len(tree.leaves(value)[0])


def _part(value: Any, rows: Any) -> Any:
    return tree.map(lambda leaf: leaf[rows], value)


def _values(loss: Callable, prediction: Any, target: Any) -> None:
    for path, leaf in tree.leaves_with_path(loss(prediction, target)):
        if not isinstance(leaf, Tensor) or leaf.dim() == 0 or len(leaf) != _count(prediction):
            shape = tuple(leaf.shape) if isinstance(leaf, Tensor) else type(leaf).__name__
            break_law(
                f"it must give one value an example, shape ({_count(prediction)}, ...), got {shape} {path}".rstrip()
            )


def _rows(loss: Callable, prediction: Any, target: Any) -> None:
    whole = loss(prediction, target)
    for row in range(_count(prediction)):
        rows = slice(row, row + 1)
        alone = loss(_part(prediction, rows), _part(target, rows))
        same(alone, _part(whole, rows), f"the value of example {row} alone and among the others", rtol=1e-5, atol=1e-6)


def _gradient(loss: Callable, prediction: Any, target: Any) -> None:
    inputs = tree.map(lambda leaf: leaf.detach().requires_grad_(leaf.is_floating_point()), prediction)
    values = [leaf for leaf in tree.leaves(loss(inputs, target)) if leaf.requires_grad]
    floats = [leaf for leaf in tree.leaves(inputs) if leaf.requires_grad]
    for row in range(_count(prediction) if values and floats else 0):
        total = torch.stack([value[row].sum() for value in values]).sum()
        for gradient in torch.autograd.grad(total, floats, retain_graph=True, allow_unused=True):
            _check_gradient(gradient, row)


def _check_gradient(gradient: Tensor | None, row: int) -> None:
    if gradient is None:
        return
    if not bool(gradient.isfinite().all()):
        break_law(f"the gradient of the value of example {row} is not finite")
    others = torch.cat([gradient[:row], gradient[row + 1 :]])
    if bool((others != 0).any()):
        break_law(f"the value of example {row} has a gradient by another example")


def check_metric(metric: Metric, prediction: Any, target: Any, *, skip: Collection[str] = ()) -> tuple[str, ...]:
    """Check the laws of a metric, and return their names.

    - "pure": none of its functions changes an argument, and each gives the same bits again.
    - "identity": merged with one that has seen nothing, an accumulator gives the same number.
    - "merge": in any cut, any order and any grouping of the batches, the number is the same.
    - "weight": rows of zero weight change nothing, even if they hold NaN; a weight of 2 counts as two equal rows.
    - "jit": adding is the same eager and compiled.

    Args:
        metric: the metric.
        prediction: a tree of tensors of at least four rows.
        target: a tree of tensors of as many rows.
        skip: the names of laws that it need not obey.

    Raises:
        LawBroken: a law does not hold; the message says which, and where.

    >>> from functrain import metrics
    >>> check_metric(metrics.accuracy, torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2]))
    ('pure', 'identity', 'merge', 'weight', 'jit')
    """
    return hold("the metric", metric_laws(metric, prediction, target), skip)


def metric_laws(metric: Metric, prediction: Any, target: Any) -> Laws:
    """Return the laws of `check_metric` by name, to be checked one by one.

    >>> from functrain import metrics
    >>> metric_laws(metrics.accuracy, torch.eye(4), torch.arange(4))["merge"]()
    """
    return {
        "pure": partial(_metric_pure, metric, prediction, target),
        "identity": partial(_metric_identity, metric, prediction, target),
        "merge": partial(_metric_merge, metric, prediction, target),
        "weight": partial(_metric_weight, metric, prediction, target),
        "jit": lambda: check_jit(metric.add, metric.init(), metric.measure(prediction, target)),
    }


def _seen(metric: Metric, prediction: Any, target: Any) -> Any:
    return metric.update(metric.init(), prediction, target)


def _agree(metric: Metric, a: Any, b: Any, what: str) -> None:
    same(metric.compute(a), metric.compute(b), what, rtol=1e-9, atol=1e-12)


def _metric_pure(metric: Metric, prediction: Any, target: Any) -> None:
    values = check_pure(metric.measure, prediction, target)
    accumulator = check_pure(metric.add, metric.init(), values)
    check_pure(metric.compute, check_pure(metric.merge, accumulator, _seen(metric, prediction, target)))


def _metric_identity(metric: Metric, prediction: Any, target: Any) -> None:
    seen = _seen(metric, prediction, target)
    _agree(metric, metric.merge(metric.init(), seen), seen, "merged after nothing and alone, the numbers")
    _agree(metric, metric.merge(seen, metric.init()), seen, "merged before nothing and alone, the numbers")


def _metric_merge(metric: Metric, prediction: Any, target: Any) -> None:
    whole, count = _seen(metric, prediction, target), _count(prediction)
    for cut in range(1, count):
        first, rest = (
            _seen(metric, _part(prediction, rows), _part(target, rows)) for rows in (slice(0, cut), slice(cut, count))
        )
        _agree(metric, metric.merge(first, rest), whole, f"cut at row {cut} and whole, the numbers")
        _agree(
            metric, metric.merge(rest, first), whole, f"cut at row {cut}, in the other order, and whole, the numbers"
        )
    ones = [_seen(metric, _part(prediction, slice(i, i + 1)), _part(target, slice(i, i + 1))) for i in range(3)]
    left, right = metric.merge(metric.merge(*ones[:2]), ones[2]), metric.merge(ones[0], metric.merge(*ones[1:]))
    _agree(metric, left, right, "grouped to the left and to the right, the numbers")


def _metric_weight(metric: Metric, prediction: Any, target: Any) -> None:
    values, count = metric.measure(prediction, target), _count(prediction)
    weight = torch.ones(count)
    weight[0] = 0
    rest = metric.add(metric.init(), _part(values, slice(1, count)))
    _agree(metric, metric.add(metric.init(), values, weight), rest, "without row 0 and with zero weight, the numbers")
    _agree(
        metric,
        metric.add(metric.init(), _spoil(values), weight),
        rest,
        "with NaN of zero weight, the numbers",
    )
    weight[0] = 2
    twice = metric.add(metric.init(), _part(values, [0, *range(count)]))
    _agree(metric, metric.add(metric.init(), values, weight), twice, "row 0 twice and with weight 2, the numbers")


def _spoil(values: Any) -> Any:
    def spoil(leaf: Tensor) -> Tensor:
        if not leaf.is_floating_point():
            return leaf
        return torch.cat([torch.full_like(leaf[:1], float("nan")), leaf[1:]])

    return tree.map(spoil, values)
