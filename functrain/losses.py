"""Losses: pure functions of (prediction, target) that give one value per example; `reduce` makes them one number.

Classes are the last axis of a prediction, which holds logits: numbers of any size and sign, not probabilities.

| loss | prediction | target | values |
| --- | --- | --- | --- |
| `cross_entropy` | (n, ..., classes) | labels (n, ...), or class probabilities (n, ..., classes) | (n, ...) |
| `nll` | (n, ..., classes), log-probabilities | labels (n, ...) | (n, ...) |
| `mse`, `mae`, `binary_cross_entropy` | (n, ...) | (n, ...) | (n,), the mean over an example's own axes |

Options are keywords, so `partial(cross_entropy, label_smoothing=0.1)` is a loss as well.
"""

from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from functrain import weighted
from functrain.dispatch_state import is_plain
from functrain.errors import DtypeMismatch, InvalidArgument, LabelOutOfRange, ShapeMismatch

# PyTorch gives labels equal to `ignore_index` (-100, unless told) a loss of zero without a word. What is to be left out
# has zero weight here, so no label is special: this one no dataset holds.
_NO_LABEL = -(2**63)


def logsumexp(x: Tensor, axis: int = -1) -> Tensor:
    """Return log(sum(exp(x))) along an axis, without overflow.

    With m = max(x) it is m + log(sum(exp(x - m))): the largest term becomes exp(0), so nothing overflows and the sum
    is at least 1.

    Args:
        x: (..., k), of any size.
        axis: the axis that is summed, the last by default.

    See also: `log_softmax`.

    >>> logsumexp(torch.tensor([1000.0, 0.0]))
    tensor(1000.)
    """
    return torch.logsumexp(x, axis)


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Return the logarithm of the softmax along an axis: x - logsumexp(x).

    Args:
        x: (..., classes), logits.
        axis: the axis of the classes, the last by default.

    See also: `nll`, which with this makes `cross_entropy`.

    >>> log_softmax(torch.tensor([0.0, 0.0])).exp()
    tensor([0.5000, 0.5000])
    """
    return torch.log_softmax(x, axis)


def nll(log_probability: Tensor, target: Tensor, *, class_weight: Tensor | None = None) -> Tensor:
    """Return the negative log-likelihood of each label: -log_probability[i, target[i]].

    Args:
        log_probability: (n, ..., classes), such as `log_softmax` gives.
        target: (n, ...), integers from 0 to classes - 1.
        class_weight: (classes,), a factor for the examples of each class.

    Returns:
        One value per label, shaped like the target.

    Raises:
        LabelOutOfRange, ShapeMismatch, DtypeMismatch: the target does not fit the prediction.

    >>> nll(log_softmax(torch.zeros(3, 2)), torch.tensor([0, 1, 1]))
    tensor([0.6931, 0.6931, 0.6931])
    """
    labels = _labels(log_probability, target)
    factor = _class_weight(class_weight, log_probability)
    rows = log_probability if log_probability.dim() <= 2 else log_probability.flatten(0, -2)
    try:
        values = F.nll_loss(rows, _flat(labels), factor, ignore_index=_NO_LABEL, reduction="none")
    except (IndexError, RuntimeError) as error:
        _explain(error, labels, log_probability.shape[-1])
    return values if values.dim() <= 1 and labels.dim() <= 1 else values.reshape(labels.shape)


def cross_entropy(
    prediction: Tensor, target: Tensor, *, label_smoothing: float = 0.0, class_weight: Tensor | None = None
) -> Tensor:
    """Return the cross-entropy between the softmax of each prediction and its target: nll of log_softmax.

    With log-probabilities l and target probabilities q it is -sum(q * l) over the classes; a label y means q = 1 at y.

    Args:
        prediction: (n, ..., classes), logits.
        target: labels, shape (n, ...), integers from 0 to classes - 1; or class probabilities, floats of the
            prediction's shape.
        label_smoothing: the part s of the target, in [0, 1], that is spread evenly: q becomes (1 - s) q + s / classes
            (Szegedy et al., 2016, https://arxiv.org/abs/1512.00567).
        class_weight: (classes,), a factor for the term of each class. The mean over examples divides by the
            examples' weights alone, not by these factors.

    Returns:
        One value per label, shape (n, ...).

    Raises:
        LabelOutOfRange: a label is no class. On an accelerator its own assertion reports it instead.
        ShapeMismatch, DtypeMismatch: the target does not fit the prediction.
        InvalidArgument: the label smoothing is outside [0, 1].

    >>> cross_entropy(torch.tensor([[0.0, 0.0], [9.0, -9.0]]), torch.tensor([1, 1]))
    tensor([ 0.6931, 18.0000])
    >>> from toolz import curry
    >>> curry(cross_entropy)(label_smoothing=0.5)(torch.tensor([[9.0, -9.0]]), torch.tensor([0]))
    tensor([4.5000])
    """
    if not 0 <= label_smoothing <= 1:
        raise InvalidArgument(f"label_smoothing must be in [0, 1], got {label_smoothing!r}")
    rows, labels, factor = _rows(prediction, target, class_weight)
    try:
        values = F.cross_entropy(
            rows, labels, factor, ignore_index=_NO_LABEL, reduction="none", label_smoothing=label_smoothing
        )
    except (IndexError, RuntimeError) as error:
        _explain(error, labels, prediction.shape[-1])
    return values if rows is prediction else values.reshape(prediction.shape[:-1])


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error of each example.

    Args:
        prediction: (n, ...).
        target: the same shape; nothing is broadcast.

    Returns:
        (n,): the mean of (prediction - target)^2 over the example's own axes.

    Raises:
        ShapeMismatch: the shapes differ.

    >>> mse(torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.zeros(2, 2))
    tensor([5., 0.])
    """
    _check_same_shape(prediction, target)
    return _per_example((prediction - target).square())


def mae(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute error of each example.

    Args:
        prediction: (n, ...).
        target: the same shape; nothing is broadcast.

    Returns:
        (n,): the mean of |prediction - target| over the example's own axes.

    Raises:
        ShapeMismatch: the shapes differ.

    >>> mae(torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.zeros(2, 2))
    tensor([2., 0.])
    """
    _check_same_shape(prediction, target)
    return _per_example((prediction - target).abs())


def binary_cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy of yes-or-no targets, from logits.

    With p = sigmoid(prediction) it is -(target * log(p) + (1 - target) * log(1 - p)), computed without overflow.

    Args:
        prediction: (n, ...), logits.
        target: the same shape, numbers in [0, 1] or booleans; nothing is broadcast.

    Returns:
        (n,): the mean over the example's own axes.

    Raises:
        ShapeMismatch: the shapes differ.
        LabelOutOfRange: a target is outside [0, 1]; seen where values can be looked at without waiting: when the
            function just runs (not traced, not transformed) on the CPU.

    >>> binary_cross_entropy(torch.tensor([0.0, 100.0]), torch.tensor([1, 0]))
    tensor([  0.6931, 100.0000])
    """
    _check_same_shape(prediction, target)
    _check_unit_interval(target)
    values = F.binary_cross_entropy_with_logits(prediction, target.to(prediction.dtype), reduction="none")
    return _per_example(values)


def reduce(values: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the weighted mean of per-example values: sum(weight * value) / sum(weight).

    Examples of zero weight have no influence on it, nor any gradient, even where their value is NaN. When all
    weights are zero the mean is 0, with a gradient of zero: such a batch asks for no change.

    Args:
        values: (n, ...), what a loss gives.
        weight: (n,), not negative, counted for each of an example's values; or of more leading axes of the values, such
            as (n, time). None counts all alike.

    Returns:
        A scalar.

    Raises:
        ShapeMismatch: the values are a scalar already, or the weight does not fit.

    >>> reduce(torch.tensor([1.0, 3.0]))
    tensor(2.)
    >>> reduce(torch.tensor([1.0, 3.0, float("nan")]), torch.tensor([3.0, 1.0, 0.0]))
    tensor(1.5000)
    """
    if weight is None and values.dim() > 0:
        return values.mean()
    total, mass = weighted.total(values, weight)
    return total / (mass + (mass == 0))


def shares(values: Tensor, weight: Tensor | None = None) -> Tensor | float:
    """Return the part that each value has in `reduce`, its gradient by the values: weight / sum(weight).

    Args:
        values: (n, ...), what a loss gives.
        weight: as in `reduce`.

    Returns:
        As many numbers, of the same dtype, all zero where all weights are; one number for all values without weight.

    Raises:
        ShapeMismatch: the values are a scalar already, or the weight does not fit.

    >>> shares(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([3.0, 1.0, 0.0]))
    tensor([0.7500, 0.2500, 0.0000])
    >>> shares(torch.tensor([1.0, 3.0, 2.0, 2.0]))
    0.25
    """
    weighted.check_values(values)
    if weight is None:
        return 1 / max(values.numel(), 1)
    spread, mass = weighted.spread_over(values, weight)
    return (spread * (1 / (mass + (mass == 0)))).expand(values.shape)


def _rows(prediction: Tensor, target: Tensor, class_weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return prediction, target and class weight as PyTorch takes them: without further axes, labels in int64."""
    probabilities = target.is_floating_point() and target.shape == prediction.shape
    labels = target if probabilities else _labels(prediction, target)
    factor = _class_weight(class_weight, prediction)
    if prediction.dim() <= 2:
        return prediction, labels, factor
    return prediction.flatten(0, -2), labels.flatten(0, -2) if probabilities else labels.flatten(), factor


def _labels(prediction: Tensor, target: Tensor) -> Tensor:
    if target.is_floating_point():
        raise DtypeMismatch(
            f"target must be integer labels of shape {tuple(prediction.shape[:-1])}, got {_form(target)} for a "
            f"prediction {_form(prediction)}; use target.long(), or for class probabilities the prediction's shape"
        )
    if target.shape != prediction.shape[:-1]:
        raise ShapeMismatch(
            f"target must have one label per prediction, shape {tuple(prediction.shape[:-1])} for a prediction "
            f"{_form(prediction)} with its classes last; got {_form(target)}"
        )
    return target if target.dtype == torch.int64 else target.long()


def _flat(labels: Tensor) -> Tensor:
    return labels.flatten() if labels.dim() > 1 else labels


def _class_weight(class_weight: Tensor | None, prediction: Tensor) -> Tensor | None:
    if class_weight is None:
        return None
    if class_weight.shape != prediction.shape[-1:]:
        raise ShapeMismatch(
            f"class_weight must have one factor per class, shape {tuple(prediction.shape[-1:])}, got shape "
            f"{tuple(class_weight.shape)}"
        )
    return class_weight.to(prediction.dtype)


def _explain(error: Exception, labels: Tensor, classes: int) -> NoReturn:
    # The kernels check each label anyway; looking at them only afterwards costs nothing when all is well.
    if "out of bounds" not in str(error):
        raise error
    found = ""
    if is_plain():
        low, high = labels.aminmax()
        found = f", got labels from {int(low)} to {int(high)}"
    raise LabelOutOfRange(
        f"target: labels must be from 0 to {classes - 1} for the {classes} classes of the prediction{found}; "
        "number the classes from 0, widen the last layer, or give what is to be ignored zero weight"
    ) from error


def _check_same_shape(prediction: Tensor, target: Tensor) -> None:
    if prediction.shape != target.shape:
        raise ShapeMismatch(
            f"prediction and target must have one shape, got {tuple(prediction.shape)} and {tuple(target.shape)}; "
            "nothing is broadcast: reshape one of them, for example with squeeze(-1)"
        )


def _check_unit_interval(target: Tensor) -> None:
    if target.dtype == torch.bool or target.device.type != "cpu" or target.numel() == 0 or not is_plain():
        return
    low, high = (float(edge) for edge in target.aminmax())
    if not (low >= 0 and high <= 1):
        raise LabelOutOfRange(f"target: yes-or-no targets must be in [0, 1], got values from {low:g} to {high:g}")


def _per_example(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1) if values.dim() > 1 else values


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{tuple(tensor.shape)}"
