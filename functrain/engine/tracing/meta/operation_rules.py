"""Rules for the results of common operations: their shapes, strides and dtypes.

A rule takes the arguments of an operation with meta tensors for tensors, and returns meta tensors, or None where it is
not sure. Wrong arguments are such a case: the error is PyTorch's.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from functrain.engine.tracing.meta.elementwise_rules import (
    Inferred,
    adding,
    broadcast,
    broadcast_shape,
    elementwise,
    new_meta,
)
from functrain.engine.tracing.meta.geometry import is_dense, is_row_major
from functrain.engine.tracing.meta.layer_rules import LAYERS

RULES: dict[str, Callable[..., Inferred]] = dict(LAYERS)
"""Name of an operation, without "aten::" -> its rule."""

_rule = adding(RULES)


def _like(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=dtype or x.dtype, device="meta")


# Operations on each element.

_OF_BITS = "bitwise_and bitwise_not bitwise_or bitwise_xor"
_OF_NUMBERS = "abs add ceil clamp clamp_max clamp_min floor maximum minimum mul neg round sign square sub"
_TO_FLOATS = "cos div erf exp expm1 log log1p log2 reciprocal rsqrt sigmoid sin sqrt tanh"
_OF_FLOATS = """
    addcdiv addcmul elu elu_backward gelu gelu_backward hardtanh leaky_relu leaky_relu_backward lerp relu
    sigmoid_backward silu silu_backward softplus tanh_backward
"""
_TO_BOOL = "eq ge gt isfinite isinf isnan le logical_and logical_not logical_or logical_xor lt ne"


def _floating(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype.is_floating_point or dtype.is_complex else torch.get_default_dtype()


def _if_floating(dtype: torch.dtype) -> torch.dtype | None:
    return dtype if dtype.is_floating_point else None


RULES.update(
    {
        **dict.fromkeys(_OF_BITS.split(), elementwise(lambda dtype: dtype)),
        **dict.fromkeys(_OF_NUMBERS.split(), elementwise(lambda d: None if d.is_complex or d is torch.bool else d)),
        **dict.fromkeys(_TO_BOOL.split(), elementwise(lambda dtype: torch.bool)),
        **dict.fromkeys(_TO_FLOATS.split(), elementwise(_floating)),
        **dict.fromkeys(_OF_FLOATS.split(), elementwise(_if_floating, promotes=False)),
    }
)


@_rule("where")
def _where(condition: Any, a: Any = None, b: Any = None) -> Inferred:
    tensors = [x for x in (a, b) if isinstance(x, Tensor)]
    if len(tensors) < 2 or condition.dtype is not torch.bool or a.dtype is not b.dtype:
        return None
    return broadcast([condition, a, b], a.dtype)


@_rule("masked_fill")
def _masked_fill(x: Tensor, mask: Tensor, value: Any) -> Inferred:
    if isinstance(value, Tensor) or mask.dim() > x.dim() or broadcast_shape([x.shape, mask.shape]) != list(x.shape):
        return None
    return new_meta(x.shape, x.dtype)


@_rule("threshold_backward")
def _threshold_backward(grad: Tensor, x: Tensor, threshold: Any) -> Inferred:
    return broadcast([x, grad], x.dtype) if x.dtype is grad.dtype and x.is_floating_point() else None


@_rule("pow")
def _pow(x: Any, exponent: Any) -> Inferred:
    # A number to a power: that of 1 is filled in, in an order of its own.
    return _POW(x, exponent) if isinstance(x, Tensor) or exponent.is_contiguous() else None


_POW = elementwise(_if_floating)


@_rule("rsub")
def _rsub(x: Tensor, other: Any, alpha: Any = 1) -> Inferred:
    return RULES["sub"](other, x) if isinstance(other, Tensor) else RULES["sub"](x, other)


# Matrix products.


@_rule("mm")
def _mm(a: Tensor, b: Tensor, *more: Any) -> Inferred:
    if more or a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0] or a.dtype is not b.dtype:
        return None
    return new_meta((a.shape[0], b.shape[1]), a.dtype)


@_rule("bmm")
def _bmm(a: Tensor, b: Tensor, *more: Any) -> Inferred:
    if more or a.dim() != 3 or b.dim() != 3 or a.dtype is not b.dtype:
        return None
    if a.shape[0] != b.shape[0] or a.shape[2] != b.shape[1]:
        return None
    return new_meta((a.shape[0], a.shape[1], b.shape[2]), a.dtype)


@_rule("addmm")
def _addmm(c: Tensor, a: Tensor, b: Tensor, *more: Any, beta: Any = 1, alpha: Any = 1) -> Inferred:
    product = None if more or c.dtype is not a.dtype else _mm(a, b)
    return product if product is not None and broadcast_shape([c.shape, product.shape]) == list(product.shape) else None


# Reductions.


def _reduce(x: Tensor, dim: Any, keepdim: bool) -> list[int] | None:
    dims = range(x.dim()) if dim is None or dim == [] else [dim] if isinstance(dim, int) else dim
    if any(not -max(x.dim(), 1) <= d < max(x.dim(), 1) for d in dims):
        return None
    axes = {d % max(x.dim(), 1) for d in dims}
    if len(axes) < len(dims):
        return None
    if keepdim:
        return [1 if k in axes else n for k, n in enumerate(x.shape)]
    return [n for k, n in enumerate(x.shape) if k not in axes]


def _reduction(to: Callable[[torch.dtype], torch.dtype | None]) -> Callable[..., Inferred]:
    def rule(x: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Inferred:
        dtype = dtype or to(x.dtype)
        shape = _reduce(x, dim, keepdim)
        return None if dtype is None or shape is None or x.numel() == 0 else new_meta(shape, dtype)

    return rule


RULES.update(
    {
        "sum": _reduction(lambda d: d if d.is_floating_point else None if d.is_complex else torch.int64),
        **dict.fromkeys(("mean", "logsumexp"), _reduction(lambda d: d if d.is_floating_point else None)),
        **dict.fromkeys(("amax", "amin"), _reduction(lambda d: d)),
        **dict.fromkeys(("argmax", "argmin"), _reduction(lambda d: torch.int64)),
    }
)


@_rule("any", "all")
def _any(x: Tensor, dim: Any = None, keepdim: bool = False) -> Inferred:
    # An empty list of axes is none here, and all of them for other reductions.
    return None if dim == [] or x.dtype is torch.uint8 else _TO_BOOLS(x, dim, keepdim)


_TO_BOOLS = _reduction(lambda dtype: torch.bool)


@_rule("var")
def _var(x: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Inferred:
    return RULES["mean"](x, dim, keepdim)


@_rule("cumsum")
def _cumsum(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Inferred:
    if not x.is_contiguous() or x.is_complex() or x.dim() == 0 or not -x.dim() <= dim < x.dim():
        return None
    return new_meta(x.shape, dtype or (x.dtype if x.is_floating_point() else torch.int64))


# Choosing and joining.


@_rule("index_select")
def _index_select(x: Tensor, dim: int, index: Tensor) -> Inferred:
    if not 0 <= dim < x.dim() or index.dim() != 1 or not x.is_contiguous():
        return None
    return new_meta((*x.shape[:dim], index.shape[0], *x.shape[dim + 1 :]), x.dtype)


def _picks(x: Tensor, dim: int, index: Tensor) -> bool:
    """Return whether an index tensor picks elements of another along an axis."""
    if not (index.dim() == x.dim() > 0 and index.dtype is torch.int64 and -x.dim() <= dim < x.dim()):
        return False
    return all(n <= m for k, (n, m) in enumerate(zip(index.shape, x.shape, strict=True)) if k != dim % x.dim())


@_rule("gather")
def _gather(x: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Inferred:
    return new_meta(index.shape, x.dtype) if _picks(x, dim, index) and index.is_contiguous() else None


@_rule("scatter", "scatter_add")
def _scatter(x: Tensor, dim: int, index: Tensor, value: Any, **kwargs: Any) -> Inferred:
    if (
        kwargs
        or not _picks(x, dim, index)
        or not x.is_contiguous()
        or (isinstance(value, Tensor) and value.dtype is not x.dtype)
    ):
        return None
    if isinstance(value, Tensor) and value.shape != index.shape:
        return None
    return new_meta(x.shape, x.dtype)


@_rule("embedding")
def _embedding(weight: Tensor, index: Tensor, *more: Any) -> Inferred:
    fits = weight.dim() == 2 and index.dtype in (torch.int64, torch.int32)
    return new_meta((*index.shape, weight.shape[1]), weight.dtype) if fits else None


@_rule("embedding_dense_backward")
def _embedding_backward(grad: Tensor, index: Tensor, rows: int, *more: Any) -> Inferred:
    return new_meta((rows, grad.shape[-1]), grad.dtype) if grad.dtype is torch.float32 and grad.dim() else None


@_rule("repeat_interleave")
def _repeat_interleave(repeats: Tensor, *more: Any, output_size: int | None = None) -> Inferred:
    return None if more or output_size is None else new_meta((output_size,), repeats.dtype)


@_rule("cat")
def _cat(tensors: list[Tensor], dim: int = 0) -> Inferred:
    first = tensors[0]
    if any(t.dtype is not first.dtype or t.dim() != first.dim() or not is_row_major(t) for t in tensors):
        return None
    if not 0 <= dim < first.dim():
        return None
    rest = [[n for k, n in enumerate(t.shape) if k != dim] for t in tensors]
    if any(r != rest[0] for r in rest):
        return None
    return new_meta((*first.shape[:dim], sum(t.shape[dim] for t in tensors), *first.shape[dim + 1 :]), first.dtype)


@_rule("stack")
def _stack(tensors: list[Tensor], dim: int = 0) -> Inferred:
    first = tensors[0]
    if not 0 <= dim <= first.dim():
        return None
    if any(t.dtype is not first.dtype or t.shape != first.shape or not is_row_major(t) for t in tensors):
        return None
    return new_meta((*first.shape[:dim], len(tensors), *first.shape[dim:]), first.dtype)


# New tensors.


@_rule("zeros", "ones")
def _zeros(size: Sequence[int], *, dtype: torch.dtype | None = None, layout: Any = None, **_: Any) -> Inferred:
    return new_meta(size, dtype or torch.get_default_dtype()) if layout in (None, torch.strided) else None


@_rule("full")
def _full(
    size: Sequence[int], value: Any, *, dtype: torch.dtype | None = None, layout: Any = None, **_: Any
) -> Inferred:
    if type(value) not in _DTYPES or layout not in (None, torch.strided):
        return None
    return new_meta(size, dtype or _DTYPES[type(value)] or torch.get_default_dtype())


@_rule("scalar_tensor")
def _scalar_tensor(value: Any, *, dtype: torch.dtype | None = None, **_: Any) -> Inferred:
    return new_meta((), dtype or torch.get_default_dtype())


@_rule("arange")
def _arange(*limits: Any, dtype: torch.dtype | None = None, **_: Any) -> Inferred:
    if not all(type(n) is int for n in limits):
        return None
    start, end, step = (0, *limits, 1) if len(limits) == 1 else (*limits, 1)[:3]
    if step == 0 or (end - start) * step < 0:
        return None
    return new_meta((math.ceil((end - start) / step),), dtype or torch.int64)


@_rule("zeros_like", "ones_like", "empty_like", "full_like")
def _fill_like(
    x: Tensor, *value: Any, dtype: Any = None, memory_format: Any = None, layout: Any = None, **_: Any
) -> Inferred:
    if layout not in (None, torch.strided):
        return None
    if is_row_major(x) and memory_format in (None, torch.preserve_format, torch.contiguous_format):
        return new_meta(x.shape, dtype or x.dtype)
    return _like(x, dtype) if memory_format in (None, torch.preserve_format) and is_dense(x) else None


@_rule("new_zeros", "new_ones", "new_empty", "new_full")
def _new(x: Tensor, size: Sequence[int], *value: Any, dtype: Any = None, layout: Any = None, **_: Any) -> Inferred:
    return new_meta(size, dtype or x.dtype) if layout in (None, torch.strided) else None


_DTYPES = {bool: torch.bool, int: torch.int64, float: None}
"""Type of a number -> the dtype of a tensor filled with it; None for the default dtype."""


@_rule("_new_zeros_with_same_feature_meta")
def _zero_tangent(x: Tensor, other: Tensor, self_num_batch_dims: int = 0) -> Inferred:
    # It looks at how much memory there is behind a tensor, which that of a trial may not show.
    return torch.ops.aten._new_zeros_with_same_feature_meta(x, other, self_num_batch_dims=self_num_batch_dims)
