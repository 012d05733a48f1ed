"""Losses of numbers: one value for each element of a prediction and a target of one shape."""

import torch
import torch.nn.functional as F
from torch import Tensor

from functrain.dispatch_state import is_plain
from functrain.errors import DtypeMismatch, LabelOutOfRange, ShapeMismatch
from functrain.losses.reduction import times, widen


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the squared error of each element.

    Args:
        prediction: (n, ...).
        target: the same shape; nothing is broadcast.

    Returns:
        (n, ...): (prediction - target)^2, of complex numbers |prediction - target|^2, in float32 at least.

    Raises:
        ShapeMismatch: the shapes differ.

    >>> mse(torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.zeros(2, 2))
    tensor([[1., 9.],
            [0., 0.]])
    """
    difference = _difference(prediction, target)
    if difference.is_complex():
        return difference.real.square() + difference.imag.square()
    return difference.square()


def mae(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the absolute error of each element.

    Args:
        prediction: (n, ...).
        target: the same shape; nothing is broadcast.

    Returns:
        (n, ...): |prediction - target|, in float32 at least.

    Raises:
        ShapeMismatch: the shapes differ.

    >>> mae(torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.zeros(2, 2))
    tensor([[1., 3.],
            [0., 0.]])
    """
    return _difference(prediction, target).abs()


def binary_cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy of yes-or-no targets, from logits.

    With p = sigmoid(prediction) it is -(target * log(p) + (1 - target) * log(1 - p)), computed without overflow.

    Args:
        prediction: (n, ...), logits.
        target: the same shape, numbers in [0, 1] or booleans; nothing is broadcast.

    Returns:
        (n, ...): a value for each element, in float32 at least. Infinite logits are certain: right ones cost 0.

    Raises:
        ShapeMismatch: the shapes differ.
        DtypeMismatch: one of them is complex.
        LabelOutOfRange: a target is outside [0, 1]; seen where values can be looked at without waiting: when the
            function just runs (not traced, not transformed) on the CPU.

    >>> binary_cross_entropy(torch.tensor([0.0, 100.0]), torch.tensor([1, 0]))
    tensor([  0.6931, 100.0000])
    """
    _check_same_shape(prediction, target)
    for name, tensor in (("prediction", prediction), ("target", target)):
        if tensor.is_complex():
            raise DtypeMismatch(f"{name} must be real numbers for yes or no, got {tensor.dtype}")
    _check_unit_interval(target)
    logits = widen(prediction)
    yes = target.to(torch.promote_types(logits.dtype, target.dtype))
    return times(yes, -F.logsigmoid(logits)) + times(1 - yes, -F.logsigmoid(-logits))


def _difference(prediction: Tensor, target: Tensor) -> Tensor:
    _check_same_shape(prediction, target)
    return widen(prediction) - widen(target)


def _check_same_shape(prediction: Tensor, target: Tensor) -> None:
    if prediction.shape != target.shape:
        raise ShapeMismatch(
            f"prediction and target must have one shape, got {tuple(prediction.shape)} and {tuple(target.shape)}; "
            "nothing is broadcast: reshape one of them, for example with squeeze(-1)"
        )


def _check_unit_interval(target: Tensor) -> None:
    if target.dtype == torch.bool or target.device.type != "cpu" or target.numel() == 0 or not is_plain():
        return
    low, high = (float(edge) for edge in target.detach().aminmax())
    if not (low >= 0 and high <= 1):
        raise LabelOutOfRange(f"target: yes-or-no targets must be in [0, 1], got values from {low:g} to {high:g}")
