"""Convolution over N x C x H x W, with any H and W: the batch, the channels, then the axes of space.

Space has two axes unless `dims` says otherwise: N x C x L with one, N x C x D x H x W with three.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from functrain import arguments
from functrain.arguments import PerAxis, per_axis
from functrain.errors import InvalidArgument, ShapeMismatch
from functrain.initializers import Initializer
from functrain.nn.formula import layer
from functrain.nn.model import Model
from functrain.nn.parameters import KAIMING, check_bias, check_initializer, weight_and_bias
from functrain.nn.takes import axes, floating, images, room_for

_CONVOLVE: dict[int, Callable] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def conv(
    out: int,
    kernel_size: PerAxis,
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
        kernel_size: the size of the kernel.
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
    convolve = _CONVOLVE[arguments.one_of("dims", dims, (1, 2, 3))]
    kernel_size, stride = per_axis("kernel_size", kernel_size, dims), per_axis("stride", stride, dims)
    dilation, padding = per_axis("dilation", dilation, dims), _padding(padding, stride, dims)
    _check_groups(arguments.whole("out", out), arguments.whole("groups", groups))
    weight, bias_of = check_initializer("weight", weight), check_bias(bias)
    label = f"conv({out}, kernel {' x '.join(map(str, kernel_size))})"

    def params(x):
        return weight_and_bias((out, x.shape[1] // groups, *kernel_size), weight, bias_of)

    def apply(p, x):  # `images`, for PyTorch would take C x H x W for one image, and N x H x W with it
        bias = p["bias"] if bias_of else None
        return convolve(images(label, x, dims), p["weight"], bias, stride, padding, dilation, groups)

    fits = partial(_fits, dims, groups, (kernel_size, (0,) * dims if isinstance(padding, str) else padding, dilation))
    return layer(label, params, apply, takes=fits)


def _padding(padding: PerAxis | str, stride: tuple[int, ...], dims: int) -> tuple[int, ...] | str:
    if not isinstance(padding, str):
        return per_axis("padding", padding, dims, minimum=0)
    if padding not in ("same", "valid"):
        raise InvalidArgument(f"padding must be numbers, 'same' or 'valid', got {padding!r}")
    if padding == "same" and set(stride) != {1}:
        raise InvalidArgument(f"padding='same' needs stride 1, got stride={stride}; give the padding in numbers")
    return padding


def _check_groups(out: int, groups: int) -> None:
    if out % groups:
        raise InvalidArgument(f"groups must divide out, got groups={groups} and out={out}")


def _fits(dims: int, groups: int, extent: tuple, label: str, x: Any, params: Any) -> None:
    images(label, x, dims)
    floating(label, x)
    if params is None:
        _check_divided(label, x, groups)
    else:
        _check_channels(label, x, params["weight"].shape[1] * groups)
        room_for(label, x, *extent)


def _check_divided(label: str, x: Tensor, groups: int) -> None:
    channels = x.shape[1]
    if channels % groups or channels == 0:
        raise ShapeMismatch(
            f"{label}: groups={groups} must divide the channels C of the input {axes(x.dim() - 2)}, got shape "
            f"{tuple(x.shape)} with C = {channels}"
        )


def _check_channels(label: str, x: Tensor, channels: int) -> None:
    if x.shape[1] != channels:
        raise ShapeMismatch(
            f"{label}: the input must have the C = {channels} channels (axis 1) that it was initialised for, got "
            f"{axes(x.dim() - 2)} = {' x '.join(map(str, x.shape))}"
        )
