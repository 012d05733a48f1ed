"""Convolutions: their memory layout is that of the kernel that PyTorch chooses for the device."""

from typing import Any

import torch
from torch import Tensor

from functrain.engine.tracing.meta.elementwise_rules import new_meta
from functrain.engine.tracing.meta.geometry import is_row_major

aten = torch.ops.aten
CONVOLUTIONS = {aten.convolution.default: 0, aten.convolution_backward.default: 1}
"""Convolution -> where in its arguments the input stands, before the weight."""

_OPTIONS = ("stride", "padding", "dilation", "transposed", "output_padding", "groups")


def convolution(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Return the meta tensors of a convolution, or None where it is not sure: only images of common layouts are."""
    at = CONVOLUTIONS[func]
    if kwargs or args[at].dim() != 4 or len(args) < at + 9 or not all(map(_is_common, args[: at + 2])):
        return None
    results: Any = _shapes(args) if at == 0 else _gradients(args)
    if results is None:
        return None
    layout = _layout(at, args)
    if layout not in (torch.contiguous_format, torch.channels_last):
        return None
    if at == 0:
        return results.to(memory_format=layout)
    return tuple(t if t is None or t.dim() != 4 else t.to(memory_format=layout) for t in results)


def _is_common(t: Tensor) -> bool:
    common = is_row_major(t) or t.is_contiguous(memory_format=torch.channels_last)
    return t.dtype is torch.float32 and t.numel() > 0 and common and not t.is_neg()


def _layout(at: int, args: Any) -> torch.memory_format:
    x, weight, bias, *settings = args[at : at + 9]
    options: dict[str, Any] = dict(zip(_OPTIONS, settings, strict=True))
    options.update({"bias": None, "bias_sizes": bias} if at or bias is None else {"bias": bias})
    backend = torch._C._select_conv_backend(x, weight, **options)  # pyright: ignore
    return torch._C._conv_determine_backend_memory_format(x, weight, backend)  # pyright: ignore


def _shapes(args: Any) -> Tensor | None:
    x, weight, bias, stride, padding, dilation, transposed, _, groups = args[:9]
    if x.dtype is not weight.dtype or weight.dim() != 4 or transposed or (bias is not None and not _fits(bias, weight)):
        return None
    if x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        return None
    sizes = windows(x, weight.shape[2:], stride, padding, dilation)
    return new_meta((x.shape[0], weight.shape[0], *sizes), x.dtype) if min(sizes) > 0 else None


def _fits(bias: Tensor, weight: Tensor) -> bool:
    return bias.shape == weight.shape[:1] and bias.dtype is weight.dtype


def _gradients(args: Any) -> tuple | None:
    grad, x, weight, _, *more = args
    sizes = (x.shape, weight.shape, (grad.shape[1],))
    return tuple(new_meta(size, grad.dtype) if wanted else None for size, wanted in zip(sizes, more[-1], strict=True))


def windows(x: Tensor, *options: Any) -> list[int]:
    """Return along each axis of space how often a window fits, by (kernel, stride, padding, dilation).

    >>> windows(torch.empty(1, 1, 8, 8), [3, 3], [1], [0], [1])
    [6, 6]
    """
    axes = x.dim() - 2
    each = [list(option) * axes if len(option) == 1 else list(option) for option in options]
    return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(x.shape[2:], *each, strict=True)]
