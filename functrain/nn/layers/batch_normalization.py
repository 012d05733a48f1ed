"""Batch norm, which carries its statistics from batch to batch as values."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from functrain.errors import InvalidArgument, ShapeMismatch
from functrain.nn.formula import stateful_layer
from functrain.nn.model import Buffers, Model
from functrain.nn.takes import alike, floating
from functrain.schedule.hyper import is_number

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def batch_norm(momentum: float | None = 0.1, eps: float = 1e-5, affine: bool = True) -> Model:
    """Return the layer that normalises each channel over the batch, as `torch.nn.BatchNorm1d` (or 2d, 3d).

    Its input is N x C or N x C x space. In training each channel is shifted and scaled to mean 0 and variance 1 over
    the batch and space, and the running statistics move towards those of the batch; in evaluation they take the place
    of the batch's. They are the buffers "running_mean", "running_var" and "num_batches_tracked", and `apply` returns
    new ones.

    With the example weights of `mode.weight` the statistics are weighted: rows of zero weight have no influence, not
    even with NaN in them, and rows of equal weights count as without. A batch that leaves no variance to estimate
    (fewer than two values of a weight) keeps the running statistics as they are.

    Args:
        momentum: the part of the way that running statistics move towards the batch's, in [0, 1]; None for their
            mean over all batches.
        eps: what is added to the variance, positive.
        affine: whether a "weight" multiplies and a "bias" is added for each channel; they begin at one and zero.

    Raises:
        InvalidArgument: an option is none of these.
        ShapeMismatch: when initialised or applied, the input does not fit, or has one value per channel in training.
        TreeMismatch: when applied, parameters or buffers are of another model.

    Reference: Ioffe and Szegedy, Batch normalization, ICML 2015.

    >>> from functrain import nn, random
    >>> layer = batch_norm()
    >>> x = torch.tensor([[1.0], [3.0]])
    >>> params, buffers = layer.init(random.key(0), x)
    >>> y, after = layer.apply(params, buffers, x, nn.training(random.key(0)))
    >>> y.flatten(), after["running_mean"], buffers["running_mean"]
    (tensor([-1.0000,  1.0000]), tensor([0.2000]), tensor([0.]))
    """
    if momentum is not None and not (is_number(momentum) and 0 <= momentum <= 1):
        raise InvalidArgument(f"momentum must be a number in [0, 1] or None, got {momentum!r}")
    check_eps(eps)

    def params(x):
        return {"weight": x.new_ones(x.shape[1]), "bias": x.new_zeros(x.shape[1])} if affine else {}

    def apply(p, b, x, mode):
        _check_channels(x, b["running_mean"])
        scale, shift = (p["weight"], p["bias"]) if affine else (None, None)
        if not mode.train:
            return F.batch_norm(x, b["running_mean"], b["running_var"], scale, shift, False, 0.0, eps), b
        check_several(x)
        if mode.weight is None:
            y, *batch = normalise(x, scale, shift, eps)
        else:
            y, *batch = normalise_weighted(x, mode.weight, scale, shift, eps)
        return y, _move(b, momentum, batch)

    return stateful_layer("batch_norm", params, _statistics, apply, takes=_channels)


def _statistics(x: Tensor) -> Buffers:
    channels = x.shape[1]
    count = torch.zeros((), dtype=torch.int64, device=x.device)
    return dict(zip(_STATISTICS, (x.new_zeros(channels), x.new_ones(channels), count), strict=True))


def _channels(label: str, x: Any, params: Any) -> None:
    floating(label, x)
    if x.dim() < 2:
        raise ShapeMismatch(f"{label}: the input must be N x C or N x C x space, got shape {tuple(x.shape)}")


def _check_channels(x: Tensor, mean: Tensor) -> None:
    if x.dim() < 2 or x.shape[1] != mean.shape[0]:
        raise ShapeMismatch(
            f"batch_norm: the input must be N x C or N x C x space with the C = {mean.shape[0]} channels (axis 1) that "
            f"it was initialised for, got shape {tuple(x.shape)}"
        )
    # A short input may come to float32 statistics, as under autocast, and in PyTorch.
    shorter = mean.dtype == torch.float32 and x.dtype in (torch.bfloat16, torch.float16)
    if not (x.dtype == mean.dtype or shorter) or x.device != mean.device:
        alike("batch_norm", x, mean)


def check_eps(eps: Any) -> None:
    """Raise unless this can be added to a variance."""
    if not (is_number(eps) and 0 < eps < math.inf):
        raise InvalidArgument(f"eps must be a positive number, got {eps!r}")


def check_several(x: Tensor) -> None:
    """Raise unless there are several values per channel, whose variance can be estimated."""
    if x.numel() // max(x.shape[1], 1) < 2:
        raise ShapeMismatch(
            f"batch_norm: training needs more than one value per channel to estimate the variance, got shape "
            f"{tuple(x.shape)}; let the loader drop such a remainder (remainder='drop'), or take another batch size"
        )


Normalised = tuple[Tensor, Tensor, Tensor, Tensor | int]
"""The output, the mean and the unbiased variance of the batch, and whether (0 or 1) these count."""


def normalise(x: Tensor, scale: Tensor | None, shift: Tensor | None, eps: float) -> Normalised:
    """Return the input normalised over its batch, the mean and variance of the batch, and that they count."""
    n = x.numel() // max(x.shape[1], 1)
    # Without running statistics PyTorch's kernel changes nothing in place, so it can be traced, differentiated and
    # vmapped. It returns 1 / sqrt(variance + eps), from which the variance is had without a second pass.
    y, mean, inverse = torch.native_batch_norm(x, scale, shift, None, None, True, 0.0, eps)
    var = (inverse.detach().pow(-2) - eps).clamp(min=0)
    return y, mean.detach(), var * (n / (n - 1)), 1


def normalise_weighted(x: Tensor, weight: Tensor, scale: Tensor | None, shift: Tensor | None, eps: float) -> Normalised:
    """Return the same with weighted rows."""
    share, usable, left = _shares(x, weight)
    channels = (-1, *[1] * (x.dim() - 2))
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    # Not a multiplication by the share alone, for what 0 * NaN would be.
    values = wide.masked_fill((weight == 0).reshape(-1, *[1] * (x.dim() - 1)), 0)
    mean = _weighted_mean(values, share)
    centred = values - mean.reshape(channels)
    var = _weighted_mean(centred.square(), share)
    factor = torch.rsqrt(var + eps)
    if scale is None or shift is None:
        y = centred * factor.reshape(channels)
    else:
        y = torch.addcmul(shift.reshape(channels), centred, (factor * scale).reshape(channels))
    return y.to(x.dtype), mean.detach(), var.detach() / left.to(var.dtype), usable


def _shares(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the share of each row, whether they leave a variance to estimate, and the part of it that they leave."""
    if weight.shape != x.shape[:1]:
        raise ShapeMismatch(
            f"batch_norm: the weights must be one for each of the {x.shape[0]} rows of the input, got shape "
            f"{tuple(weight.shape)}; a layer before it must keep the rows"
        )
    total = weight.double().sum()
    share = weight.double() / torch.where(total > 0, total, 1.0)
    # The expected biased variance is this part of the true one: 1 - 1/n for n equal weights, PyTorch's (n - 1) / n.
    left = 1 - share.square().sum() / math.prod(x.shape[2:])
    usable = (total > 0) & (left > 0)
    return share, usable, torch.where(usable, left, 1.0)


def _weighted_mean(values: Tensor, share: Tensor) -> Tensor:
    """Return the mean of each channel, of shares of the rows that sum to one."""
    by_row = values.flatten(2).mean(2) if values.dim() > 2 else values
    return share.to(values.dtype) @ by_row


def _move(buffers: Buffers, momentum: float | None, batch: list[Any]) -> Buffers:
    batch_mean, batch_var, counts = batch
    mean, var, count = (buffers[name] for name in _STATISTICS)
    # Not 1 / (count + 1) alone: a quotient of integers is in the default dtype, float32.
    part = (count + 1).to(torch.float64).reciprocal() if momentum is None else momentum
    if isinstance(counts, Tensor):
        part = counts.to(torch.float64) * part
    return {
        "running_mean": _towards(mean, batch_mean, part),
        "running_var": _towards(var, batch_var, part),
        "num_batches_tracked": count + counts,
    }


def _towards(old: Tensor, new: Tensor, part: float | Tensor) -> Tensor:
    wide = torch.promote_types(old.dtype, torch.float32)
    before = old.to(wide)
    return (before + (new.to(wide) - before) * part).to(old.dtype)
