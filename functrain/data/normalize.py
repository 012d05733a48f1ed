"""Normalisation: inputs shifted and scaled by statistics of the training data, which validation then shares."""

from typing import Any

import torch
from torch import Tensor

from functrain import tree
from functrain.data.batch import parts
from functrain.data.dataset import ArrayDataset
from functrain.errors import DtypeMismatch, InvalidArgument, NotATensor


@tree.node
class Normalizer:
    """The function x -> (x - mean) / std with fixed statistics; made by `fit_normalizer`.

    Attributes:
        mean: a scalar, or a shape that broadcasts over one example.
        std: alike; nowhere zero.

    >>> Normalizer(torch.tensor(1.0), torch.tensor(2.0))(torch.tensor([1.0, 5.0]))
    tensor([0., 2.])
    """

    mean: Tensor
    std: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return x normalised: a tensor of examples (n, ...), or of one."""
        _check_floating(x)
        return (x - self.mean.to(x)) / self.std.to(x)


def fit_normalizer(train: Any, axis: int | None = None) -> Normalizer:
    """Return the function that normalises by the mean and the standard deviation of the training inputs.

    Use it on every other input too: `pipe(valid, map_input(normalize))`. A constant input, whose deviation is zero,
    is shifted to zero and not scaled. Sums are in float64; the deviation is the population's (divided by the count).

    Args:
        train: the training inputs, a floating-point tensor (n, ...), or an `ArrayDataset` with inputs. Its rows count
            once each, those whose weights are all zero not at all.
        axis: None for one mean and one deviation over everything; or the axis that keeps statistics of its own: 1 for
            each feature of (n, features) or each channel of (n, channels, height, width).

    Returns:
        A `Normalizer`, with the statistics as its `mean` and `std`.

    Raises:
        DtypeMismatch: the inputs are not of floating-point numbers.
        InvalidArgument: there are no inputs, or no such axis.

    >>> fit_normalizer(torch.tensor([[0.0, 5.0], [2.0, 5.0]]), axis=1)
    Normalizer(mean=float32(2,), std=float32(2,))
    """
    x = _counting_inputs(train) if isinstance(train, ArrayDataset) else train
    _check_floating(x)
    if x.dim() == 0 or x.numel() == 0:
        raise InvalidArgument(f"the training inputs are empty or a scalar, got shape {tuple(x.shape)}; pass (n, ...)")
    axis = _keep(axis, x)
    over = [a for a in range(x.dim()) if a != axis]
    count = x.numel() // (1 if axis is None else x.shape[axis])
    # By parts, so that a large array is never whole in float64.
    pieces = x.detach().split(max(1, 2**22 // max(1, x[0].numel())))
    mean = sum(part.double().sum(over, keepdim=True) for part in pieces) / count
    variance = sum((part.double() - mean).square().sum(over, keepdim=True) for part in pieces) / count
    return Normalizer(_reshape(mean, axis, x), _reshape(_scale(variance.sqrt(), mean, x), axis, x))


def _counting_inputs(train: ArrayDataset) -> Any:
    x, _, weight = parts(train.arrays, "the tree of the ArrayDataset")
    if weight is None or not isinstance(x, Tensor):
        return x
    counts = (weight != 0).flatten(1).any(1) if weight.dim() > 1 else weight != 0
    return x if bool(counts.all()) else x[counts]


def _check_floating(x: Any) -> None:
    if not isinstance(x, Tensor):
        raise NotATensor(f"a normaliser takes a tensor, got {type(x).__name__}; map it over the leaves with tree.map")
    if not x.is_floating_point():
        raise DtypeMismatch(f"a normaliser takes floating-point numbers, got {x.dtype}; convert them with .float()")


def _keep(axis: int | None, x: Tensor) -> int | None:
    if axis is None:
        return None
    last = x.dim() - 1
    if isinstance(axis, bool) or not isinstance(axis, int) or not (1 <= axis <= last or -last <= axis <= -1):
        raise InvalidArgument(
            f"axis must be None or an axis of {tuple(x.shape)} after the first, the examples: 1 to {last}; got {axis!r}"
        )
    return axis % x.dim()


def _scale(std: Tensor, mean: Tensor, x: Tensor) -> Tensor:
    # What is constant up to rounding has no scale; dividing by it would blow the rounding up.
    return torch.where(std > 8 * torch.finfo(x.dtype).eps * mean.abs(), std, 1.0)


def _reshape(statistic: Tensor, axis: int | None, x: Tensor) -> Tensor:
    """Return the statistic without the axis of the examples: it broadcasts over a batch and over one example."""
    return (statistic.squeeze() if axis is None else statistic.squeeze(0)).to(x.dtype)
