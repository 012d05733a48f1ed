"""Losses of classes: the classes are the last axis of a prediction, which holds logits."""

from collections.abc import Callable
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from functrain.dispatch_state import is_plain
from functrain.errors import DtypeMismatch, InvalidArgument, LabelOutOfRange, ShapeMismatch
from functrain.losses.reduction import times, widen

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
        One value per label, shaped like the target, in float32 at least. A class weight of zero gives 0, whatever the
        log-probability is.

    Raises:
        LabelOutOfRange, ShapeMismatch, DtypeMismatch: the target does not fit the prediction.

    >>> nll(log_softmax(torch.zeros(3, 2)), torch.tensor([0, 1, 1]))
    tensor([0.6931, 0.6931, 0.6931])
    """
    labels = _labels(log_probability, target)
    factor = _class_weight(class_weight, log_probability)
    rows = _flat_rows(widen(log_probability))
    values = _pick(rows, _flat(labels), factor)
    return values.reshape(labels.shape)


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
        One value per label, shape (n, ...), in float32 at least. A class of target probability (or class weight) zero
        adds 0, also where its logit is -inf.

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
    factor = _class_weight(class_weight, prediction)
    rows = _flat_rows(widen(prediction))
    if target.is_floating_point() and target.shape == prediction.shape:
        values = _soft(rows, _flat_rows(target).to(rows.dtype), label_smoothing, factor)
    else:
        values = _hard(rows, _flat(_labels(prediction, target)), label_smoothing, factor)
    return values if prediction.dim() <= 2 else values.reshape(prediction.shape[:-1])


def _hard(rows: Tensor, labels: Tensor, smoothing: float, factor: Tensor | None) -> Tensor:
    if smoothing == 0 and factor is None:
        return _explaining(F.cross_entropy, rows, labels, rows.shape[-1])
    log_probability = torch.log_softmax(rows, -1)
    values = _pick(log_probability, labels, factor)
    if smoothing == 0:
        return values
    even = _soft_values(log_probability, torch.full_like(log_probability, 1 / rows.shape[-1]), factor)
    return times(values.new_full((), 1 - smoothing), values) + smoothing * even


def _soft(rows: Tensor, probabilities: Tensor, smoothing: float, factor: Tensor | None) -> Tensor:
    if smoothing:
        probabilities = (1 - smoothing) * probabilities + smoothing / rows.shape[-1]
    return _soft_values(torch.log_softmax(rows, -1), probabilities, factor)


def _soft_values(log_probability: Tensor, probabilities: Tensor, factor: Tensor | None) -> Tensor:
    share = probabilities if factor is None else probabilities * factor
    return -times(share, log_probability).sum(-1)


def _pick(log_probability: Tensor, labels: Tensor, factor: Tensor | None) -> Tensor:
    values = _explaining(F.nll_loss, log_probability, labels, log_probability.shape[-1])
    return values if factor is None else times(factor[labels], values)


def _explaining(loss: Callable[..., Tensor], rows: Tensor, labels: Tensor, classes: int) -> Tensor:
    try:
        return loss(rows, labels, ignore_index=_NO_LABEL, reduction="none")
    except (IndexError, RuntimeError) as error:
        _explain(error, labels, classes)


def _flat_rows(rows: Tensor) -> Tensor:
    return rows.flatten(0, -2) if rows.dim() > 2 else rows


def _flat(labels: Tensor) -> Tensor:
    return labels.flatten() if labels.dim() > 1 else labels


def _labels(prediction: Tensor, target: Tensor) -> Tensor:
    if target.is_floating_point():
        raise DtypeMismatch(
            f"target must be integer labels of shape {tuple(prediction.shape[:-1])}, got {_describe(target)} for a "
            f"prediction {_describe(prediction)}; use target.long(), or for class probabilities the prediction's shape"
        )
    if target.shape != prediction.shape[:-1]:
        raise ShapeMismatch(
            f"target must have one label per prediction, shape {tuple(prediction.shape[:-1])} for a prediction "
            f"{_describe(prediction)} with its classes last; got {_describe(target)}"
        )
    return target if target.dtype == torch.int64 else target.long()


def _class_weight(class_weight: Tensor | None, prediction: Tensor) -> Tensor | None:
    if class_weight is None:
        return None
    if class_weight.shape != prediction.shape[-1:]:
        raise ShapeMismatch(
            f"class_weight must have one factor per class, shape {tuple(prediction.shape[-1:])}, got shape "
            f"{tuple(class_weight.shape)}"
        )
    return class_weight.to(torch.promote_types(prediction.dtype, torch.float32))


def _explain(error: Exception, labels: Tensor, classes: int) -> NoReturn:
    # The kernels check each label anyway; looking at them only afterwards costs nothing when all is well.
    if "out of bounds" not in str(error):
        raise error
    seen = ""
    if is_plain():
        low, high = labels.aminmax()
        seen = f", got labels from {int(low)} to {int(high)}"
    raise LabelOutOfRange(
        f"target: labels must be from 0 to {classes - 1} for the {classes} classes of the prediction{seen}; "
        "number the classes from 0, widen the last layer, or give what is to be ignored zero weight"
    ) from error


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{tuple(tensor.shape)}"
