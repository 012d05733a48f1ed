"""Pooling over windows of space, N x C x H x W, and over all of it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from functrain import arguments
from functrain.arguments import PerAxis, per_axis
from functrain.errors import InvalidArgument, ShapeMismatch
from functrain.nn.formula import layer
from functrain.nn.model import Model
from functrain.nn.takes import axes, floating, images, room_for

_MAX_POOL: dict[int, Callable] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG_POOL: dict[int, Callable] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def max_pool(kernel_size: PerAxis, stride: PerAxis | None = None, padding: PerAxis = 0, dims: int = 2) -> Model:
    """Return the layer that takes the largest value of each window, as `torch.nn.MaxPool2d` (or 1d, 3d).

    Args:
        kernel_size: the size of the window.
        stride: the step between windows; the size of the window when None.
        padding: minus infinities added on each side, at most half of the kernel.
        dims: the number of axes of space, 1, 2 or 3.

    Raises:
        InvalidArgument: an option is none of these.
        ShapeMismatch: when initialised or applied, the input does not fit.

    >>> import torch
    >>> max_pool(2).apply({}, {}, torch.arange(4.0).reshape(1, 1, 2, 2))[0]
    tensor([[[[3.]]]])
    """
    return _pool("max_pool", _MAX_POOL, kernel_size, stride, padding, dims)


def avg_pool(kernel_size: PerAxis, stride: PerAxis | None = None, padding: PerAxis = 0, dims: int = 2) -> Model:
    """Return the layer that takes the mean of each window, as `torch.nn.AvgPool2d` (or 1d, 3d).

    Args:
        kernel_size: the size of the window.
        stride: the step between windows; the size of the window when None.
        padding: zeros added on each side, at most half of the kernel; they count in the mean.
        dims: the number of axes of space, 1, 2 or 3.

    Raises:
        InvalidArgument: an option is none of these.
        ShapeMismatch: when initialised or applied, the input does not fit.

    >>> import torch
    >>> avg_pool(2).apply({}, {}, torch.arange(4.0).reshape(1, 1, 2, 2))[0]
    tensor([[[[1.5000]]]])
    """
    return _pool("avg_pool", _AVG_POOL, kernel_size, stride, padding, dims)


def _pool(name: str, by_dims: dict[int, Callable], size: Any, stride: Any, padding: Any, dims: int) -> Model:
    pool, size = by_dims[arguments.one_of("dims", dims, (1, 2, 3))], per_axis("kernel_size", size, dims)
    stride = size if stride is None else per_axis("stride", stride, dims)
    padding = per_axis("padding", padding, dims, minimum=0)
    if any(2 * p > k for p, k in zip(padding, size, strict=True)):
        raise InvalidArgument(
            f"padding must be at most half of the kernel, got padding={padding} and kernel_size={size}"
        )
    label = f"{name}({' x '.join(map(str, size))})"

    def apply(p, x):
        return pool(images(label, x, dims), size, stride, padding)

    return layer(label, None, apply, takes=partial(_fits, dims, (size, padding, (1,) * dims)))


def _fits(dims: int, extent: tuple, label: str, x: Any, params: Any) -> None:
    images(label, x, dims)
    floating(label, x)
    room_for(label, x, *extent)


def global_avg_pool(x: Tensor) -> Tensor:
    """Return the mean over all axes of space: N x C x H x W -> N x C.

    >>> import torch
    >>> global_avg_pool(torch.ones(1, 2, 3, 3))
    tensor([[1., 1.]])
    """
    if x.dim() < 3:
        raise ShapeMismatch(
            f"global_avg_pool: the input must have axes of space, as {axes(2)}, got shape {tuple(x.shape)}"
        )
    return x.flatten(2).mean(2)
