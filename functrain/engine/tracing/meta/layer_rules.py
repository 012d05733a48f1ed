"""Rules for the results of layers and losses, see `operation_rules`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functrain.engine.tracing.meta.convolution_rules import windows
from functrain.engine.tracing.meta.elementwise_rules import Inferred, adding, broadcast, new_meta

LAYERS: dict[str, Callable[..., Inferred]] = {}
"""Name of an operation -> its rule."""


_rule = adding(LAYERS)


# Normalisation.


@_rule("_softmax", "_log_softmax")
def _softmax(x: Tensor, dim: int, half_to_float: bool) -> Inferred:
    if half_to_float or not x.is_contiguous() or not -x.dim() <= dim < x.dim():
        return None
    return new_meta(x.shape, x.dtype)


@_rule("_softmax_backward_data", "_log_softmax_backward_data")
def _softmax_backward(grad: Tensor, out: Tensor, dim: int, dtype: torch.dtype) -> Inferred:
    if not (grad.is_contiguous() and out.is_contiguous() and grad.shape == out.shape and grad.dtype is dtype):
        return None
    return new_meta(grad.shape, dtype)


@_rule("native_layer_norm")
def _layer_norm(x: Tensor, shape: list[int], weight: Any, bias: Any, eps: float) -> Inferred:
    kept = x.dim() - len(shape)
    if not x.is_contiguous() or kept < 0 or list(x.shape[kept:]) != list(shape) or x.dtype is not torch.float32:
        return None
    if any(p is not None and (list(p.shape) != list(shape) or p.dtype is not x.dtype) for p in (weight, bias)):
        return None
    statistics = [*x.shape[:kept], *[1] * len(shape)]
    return new_meta(x.shape, x.dtype), new_meta(statistics, x.dtype), new_meta(statistics, x.dtype)


@_rule("native_layer_norm_backward")
def _layer_norm_backward(grad, x, shape, mean, rstd, weight, bias, wanted) -> Inferred:
    if not (grad.is_contiguous() and x.is_contiguous() and x.dtype is torch.float32 and grad.dtype is x.dtype):
        return None
    if any(want and like is None for want, like in zip(wanted, (x, weight, bias), strict=True)):
        return None
    return tuple(
        new_meta(like.shape, x.dtype) if want else None for want, like in zip(wanted, (x, weight, bias), strict=True)
    )


@_rule("native_batch_norm")
def _batch_norm(x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, train: bool, *more: Any) -> Inferred:
    if not (train and mean is None and var is None and x.is_contiguous() and x.dtype is torch.float32):
        return None
    if any(p is not None and (p.shape != x.shape[1:2] or p.dtype is not x.dtype) for p in (weight, bias)):
        return None
    return new_meta(x.shape, x.dtype), new_meta(x.shape[1:2], x.dtype), new_meta(x.shape[1:2], x.dtype)


@_rule("native_batch_norm_backward")
def _batch_norm_backward(grad: Tensor, x: Tensor, *more: Any) -> Inferred:
    if not (grad.is_contiguous() and x.is_contiguous() and x.dtype is torch.float32 and grad.dtype is x.dtype):
        return None
    sizes = (x.shape, x.shape[1:2], x.shape[1:2])
    return tuple(new_meta(size, x.dtype) if wanted else None for size, wanted in zip(sizes, more[-1], strict=True))


@_rule("nll_loss_forward")
def _nll_loss(x: Tensor, target: Tensor, weight: Any, reduction: int, ignored: int) -> Inferred:
    if x.dim() != 2 or target.shape != x.shape[:1] or not x.is_floating_point():
        return None
    return new_meta(() if reduction else target.shape, x.dtype), new_meta((), x.dtype)


@_rule("nll_loss_backward")
def _nll_loss_backward(grad: Tensor, x: Tensor, *more: Any) -> Inferred:
    return new_meta(x.shape, x.dtype) if x.is_contiguous() else None


# Pooling.


def _pool(x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> list[int] | None:
    if x.dim() != 4 or ceil_mode or not x.is_contiguous() or x.numel() == 0:
        return None
    sizes = windows(x, kernel, stride or kernel, padding, dilation)
    return [*x.shape[:2], *sizes] if min(sizes) > 0 else None


@_rule("max_pool2d_with_indices")
def _max_pool(x, kernel, stride=(), padding=(0,), dilation=(1,), ceil_mode=False) -> Inferred:
    shape = _pool(x, kernel, stride, padding, dilation, ceil_mode)
    return None if shape is None else (new_meta(shape, x.dtype), new_meta(shape, torch.int64))


@_rule("avg_pool2d")
def _avg_pool(x, kernel, stride=(), padding=(0,), ceil_mode=False, *more: Any) -> Inferred:
    shape = _pool(x, kernel, stride, padding, (1,), ceil_mode)
    return None if shape is None else new_meta(shape, x.dtype)


@_rule("max_pool2d_with_indices_backward", "avg_pool2d_backward")
def _pool_backward(grad: Tensor, x: Tensor, *more: Any) -> Inferred:
    return new_meta(x.shape, x.dtype) if x.dim() == 4 and x.is_contiguous() and grad.is_contiguous() else None


# Attention.


@_rule("_scaled_dot_product_flash_attention_for_cpu")
def _attention(q: Tensor, k: Tensor, v: Tensor, *more: Any, **kwargs: Any) -> Inferred:
    if q.dtype is not torch.float32:
        return None
    batch, heads, length, _ = q.shape
    return broadcast([q], q.dtype), new_meta((batch, length, heads), q.dtype).transpose(1, 2)


@_rule("_scaled_dot_product_flash_attention_for_cpu_backward")
def _attention_backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *more: Any, **kwargs: Any) -> Inferred:
    if q.dtype is not torch.float32:
        return None
    return tuple(new_meta([x.shape[i] for i in (0, 2, 1, 3)], x.dtype).transpose(1, 2) for x in (q, k, v))
