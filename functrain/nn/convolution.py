"""Convolution and pooling over N x C x H x W, with any H and W: the batch, the channels, then the axes of space.

Space has two axes unless `dims` says otherwise: N x C x L with one, N x C x D x H x W with three.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from functrain.errors import InvalidArgument, ShapeMismatch
from functrain.initializers import Initializer
from functrain.nn.combinators import lam
from functrain.nn.misfit import FAILURES, axes, check_alike, check_axes, check_extent, check_floating, check_present
from functrain.nn.model import EVALUATION, Buffers, Mode, Model, Params
from functrain.nn.options import per_axis, spatial, whole
from functrain.nn.parameters import KAIMING, affine, check_bias, check_initializer

_CONVOLVE: dict[int, Callable] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_MAX_POOL: dict[int, Callable] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG_POOL: dict[int, Callable] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}

PerAxis = int | Sequence[int]
"""A number for all axes of space, or one for each."""


def conv(
    out: int,
    kernel: PerAxis,
    stride: PerAxis = 1,
    padding: PerAxis | str = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
    bias: bool | Initializer = True,
    dims: int = 2,
    weight: Initializer = KAIMING,
) -> Model:
    """Return the convolution layer, as `torch.nn.Conv2d` (or 1d, 3d).

    Its input is N x C x H x W, of any H and W, where C comes from the example. Its parameters are "weight",
    (out, C / groups, kernel height, kernel width), and "bias", (out,), in the example's dtype and on its device.

    Args:
        out: the number of output channels.
        kernel: the size of the kernel.
        stride: the step between its positions.
        padding: zeros added on each side; "valid" for none, "same" for as many as keep H and W (at stride 1).
        groups: the channels are cut into so many groups, each with kernels of its own.
        dilation: the step between the positions that one kernel looks at.
        bias: True for a bias that begins at zero, False for none, or the initializer of one.
        dims: the number of axes of space, 1, 2 or 3.
        weight: the initializer of the weight.

    Raises:
        InvalidArgument: an option is none of these, or they do not go together.
        ShapeMismatch, DtypeMismatch, DeviceMismatch: when initialised or applied, the input does not fit.
        TreeMismatch: when applied, the parameters are of another model.

    >>> import torch
    >>> from functrain import random
    >>> layer = conv(32, 5, stride=2, padding=2)
    >>> params, buffers = layer.init(random.key(0), torch.zeros(1, 1, 28, 28))
    >>> params["weight"].shape
    torch.Size([32, 1, 5, 5])
    >>> layer.apply(params, buffers, torch.zeros(64, 1, 30, 20))[0].shape
    torch.Size([64, 32, 15, 10])
    """
    dims, out, groups = spatial(dims), whole("out", out), whole("groups", groups)
    kernel, stride = per_axis("kernel", kernel, dims), per_axis("stride", stride, dims)
    dilation, padding = per_axis("dilation", dilation, dims), _padding(padding, stride, dims)
    if out % groups:
        raise InvalidArgument(f"groups must divide out, got groups={groups} and out={out}")
    weight, make_bias = check_initializer("weight", weight), check_bias(bias)
    has_bias, convolve = make_bias is not None, _CONVOLVE[dims]
    what = f"conv({out}, kernel {' x '.join(map(str, kernel))})"
    names = ("weight", "bias") if has_bias else ("weight",)

    def init(key: Tensor, example: Any) -> tuple[Params, Buffers]:
        check_axes(what, example, dims)
        check_floating(what, example)
        channels = example.shape[1]
        if channels % groups or channels == 0:
            raise ShapeMismatch(
                f"{what}: groups={groups} must divide the channels C of the input {axes(dims)}, got shape "
                f"{tuple(example.shape)} with C = {channels}"
            )
        return affine(key, example, (out, channels // groups, *kernel), weight, make_bias), {}

    def apply(params: Params, buffers: Buffers, x: Tensor, mode: Mode = EVALUATION) -> tuple[Tensor, Buffers]:
        check_axes(what, x, dims)  # PyTorch would take C x H x W for one image, and N x H x W with it
        try:
            at = params["weight"], params["bias"] if has_bias else None
            return convolve(x, *at, stride, padding, dilation, groups), buffers
        except FAILURES:
            check_present(what, params, names)
            check_floating(what, x)
            _check_channels(what, x, params["weight"], groups)
            check_alike(what, x, params["weight"])
            if not isinstance(padding, str) or padding == "valid":
                check_extent(what, x, kernel, padding if padding != "valid" else (0,) * dims, dilation)
            raise

    return Model(init, apply)


def _padding(padding: PerAxis | str, stride: tuple[int, ...], dims: int) -> tuple[int, ...] | str:
    if not isinstance(padding, str):
        return per_axis("padding", padding, dims, minimum=0)
    if padding not in ("same", "valid"):
        raise InvalidArgument(f"padding must be numbers, 'same' or 'valid', got {padding!r}")
    if padding == "same" and set(stride) != {1}:
        raise InvalidArgument(f"padding='same' needs stride 1, got stride={stride}; give the padding in numbers")
    return padding


def _check_channels(what: str, x: Tensor, weight: Tensor, groups: int) -> None:
    channels = weight.shape[1] * groups
    if x.shape[1] != channels:
        raise ShapeMismatch(
            f"{what}: the input must have the C = {channels} channels (axis 1) that it was initialised for, got "
            f"{axes(x.dim() - 2)} = {' x '.join(map(str, x.shape))}"
        )


def max_pool(kernel: PerAxis, stride: PerAxis | None = None, padding: PerAxis = 0, dims: int = 2) -> Model:
    """Return the layer that takes the largest value of each window, as `torch.nn.MaxPool2d` (or 1d, 3d).

    Args:
        kernel: the size of the window.
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
    return _pool("max_pool", _MAX_POOL, kernel, stride, padding, dims)


def avg_pool(kernel: PerAxis, stride: PerAxis | None = None, padding: PerAxis = 0, dims: int = 2) -> Model:
    """Return the layer that takes the mean of each window, as `torch.nn.AvgPool2d` (or 1d, 3d).

    Args:
        kernel: the size of the window.
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
    return _pool("avg_pool", _AVG_POOL, kernel, stride, padding, dims)


def _pool(name: str, by_dims: dict[int, Callable], kernel, stride, padding, dims: int) -> Model:
    pool, kernel = by_dims[spatial(dims)], per_axis("kernel", kernel, dims)
    stride = kernel if stride is None else per_axis("stride", stride, dims)
    padding = per_axis("padding", padding, dims, minimum=0)
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise InvalidArgument(f"padding must be at most half of the kernel, got padding={padding} and kernel={kernel}")
    what = f"{name}({' x '.join(map(str, kernel))})"

    def apply(x: Tensor) -> Tensor:
        check_axes(what, x, dims)
        try:
            return pool(x, kernel, stride, padding)
        except FAILURES:
            check_floating(what, x)
            check_extent(what, x, kernel, padding, (1,) * dims)
            raise

    return lam(apply)


def _mean_over_space(x: Tensor) -> Tensor:
    if x.dim() < 3:
        raise ShapeMismatch(
            f"global_avg_pool: the input must have axes of space, as {axes(2)}, got shape {tuple(x.shape)}"
        )
    return x.flatten(2).mean(2)


global_avg_pool = lam(_mean_over_space)
"""The layer that takes the mean over all axes of space: N x C x H x W -> N x C."""
