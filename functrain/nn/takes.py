"""What a layer takes: checks of its input, of the kind that `layer(takes=...)` wants.

Each is a function (label, x, params) that raises where the input does not fit. `layer` calls it at `init`, where params
is None, and in `apply` only after the formula failed, so that it costs nothing when all is well.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from functrain import tree
from functrain.errors import DeviceMismatch, DtypeMismatch, NotATensor, ShapeMismatch

__all__ = [
    "Takes",
    "alike",
    "anything",
    "axes",
    "features",
    "floating",
    "images",
    "indices",
    "room_for",
    "tensor",
]


def __dir__() -> list[str]:
    return __all__


Takes = Callable[[str, Any, Any], None]
"""(label, x, params or None) -> None, or an error that says what does not fit."""


def anything(label: str, x: Any, params: Any) -> None:
    """Take any input.

    >>> anything("scale", "not even a tensor", None)
    """


def tensor(label: str, x: Any, params: Any = None) -> None:
    """Take a tensor.

    >>> import torch
    >>> tensor("flatten", torch.zeros(1))
    """
    if not isinstance(x, Tensor):
        raise NotATensor(f"{label}: the input must be a tensor, got {type(x).__name__}; use torch.as_tensor")


def floating(label: str, x: Any, params: Any = None) -> None:
    """Take a tensor of floating-point numbers.

    >>> import torch
    >>> floating("dropout", torch.zeros(1))
    """
    tensor(label, x)
    if not x.is_floating_point():
        raise DtypeMismatch(
            f"{label}: the input must be of a floating-point dtype, got {tree.describe(x)}; convert it with x.float(), "
            "or embed what is an index"
        )


def features(label: str, x: Any, params: Any = None) -> None:
    """Take floating-point numbers with the features on the last axis, as many as the weight has columns.

    >>> import torch
    >>> features("dense(10)", torch.zeros(64, 784))
    """
    floating(label, x)
    if params is None:
        if x.dim() == 0 or x.shape[-1] == 0:
            raise ShapeMismatch(f"{label}: the input must be (..., features), got shape {tuple(x.shape)}")
        return
    size = params["weight"].shape[-1]
    if x.dim() == 0 or x.shape[-1] != size:
        hint = "; put nn.flatten before it" if x.dim() > 2 and x[0].numel() == size else ""
        raise ShapeMismatch(
            f"{label}: the input must be (..., {size}), with the features that it was initialised for last, got "
            f"shape {tuple(x.shape)}{hint}"
        )


def indices(label: str, x: Any, params: Any = None) -> None:
    """Take a tensor of indices, int64 or int32.

    >>> import torch
    >>> indices("embedding(65, 8)", torch.tensor([0, 64]))
    """
    tensor(label, x)
    if str(x.dtype) not in ("torch.int64", "torch.int32"):
        raise DtypeMismatch(f"{label}: the input must be int64 or int32 indices, got {tree.describe(x)}; use x.long()")


def alike(label: str, x: Any, weight: Tensor) -> None:
    """Raise unless the input has the dtype and the device of a parameter.

    >>> import torch
    >>> alike("dense(10)", torch.zeros(1), torch.ones(3))
    """
    if not isinstance(x, Tensor):
        return
    if x.is_floating_point() and x.dtype != weight.dtype:
        raise DtypeMismatch(
            f"{label}: the input must have the dtype of the parameters, {_word(weight.dtype)}, got {_word(x.dtype)}; "
            "convert one with tree.to(..., dtype)"
        )
    if x.device != weight.device:
        raise DeviceMismatch(
            f"{label}: the input is on {x.device} and the parameters on {weight.device}; move one with "
            "tree.to(..., device)"
        )


def _word(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


_AXES = {1: ("N", "C", "L"), 2: ("N", "C", "H", "W"), 3: ("N", "C", "D", "H", "W")}


def axes(dims: int) -> str:
    """Return the names of the axes of a batch of images of so many dimensions.

    >>> axes(2)
    'N x C x H x W'
    """
    return " x ".join(_AXES[dims])


def images(label: str, x: Any, dims: int) -> Tensor:
    """Return the input, which must have the axes N, C and `dims` more.

    >>> import torch
    >>> images("conv", torch.zeros(1, 3, 8, 8), 2).shape
    torch.Size([1, 3, 8, 8])
    """
    tensor(label, x)
    if x.dim() != dims + 2:
        hint = "give the one channel an axis with x.unsqueeze(1)" if x.dim() == dims + 1 else "reshape it"
        raise ShapeMismatch(
            f"{label}: the input must have the axes {axes(dims)} (batch, channels, then space of any size), got shape "
            f"{tuple(x.shape)}; {hint}"
        )
    return x


def room_for(label: str, x: Tensor, kernel: Sequence[int], padding: Sequence[int], dilation: Sequence[int]) -> None:
    """Raise unless a kernel fits into the padded input along each axis of space.

    >>> import torch
    >>> room_for("conv", torch.zeros(1, 1, 8, 8), (3, 3), (0, 0), (1, 1))
    """
    for name, size, k, p, d in zip(_AXES[x.dim() - 2][2:], x.shape[2:], kernel, padding, dilation, strict=True):
        extent = d * (k - 1) + 1
        if size + 2 * p < extent:
            raise ShapeMismatch(
                f"{label}: the kernel covers {extent} along {name}, but the input has {name} = {size}"
                f"{f' and {p} of padding on each side' if p else ''}: {axes(x.dim() - 2)} is "
                f"{' x '.join(map(str, x.shape))}; take a smaller kernel or more padding"
            )
