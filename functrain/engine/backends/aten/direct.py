"""How an operation is called most quickly from Python."""

from collections.abc import Callable
from typing import Any

import torch

from functrain.operators import KERNELS

_F = torch._C._VariableFunctions  # pyright: ignore
DIRECT = frozenset(
    [
        "_log_softmax",
        "_log_softmax_backward_data",
        "_softmax",
        "_softmax_backward_data",
        "abs",
        "add",
        "addcdiv",
        "addcmul",
        "addmm",
        "all",
        "amax",
        "amin",
        "any",
        "arange",
        "argmax",
        "baddbmm",
        "bitwise_and",
        "bitwise_or",
        "bitwise_xor",
        "bmm",
        "cat",
        "clamp",
        "clamp_max",
        "clamp_min",
        "clone",
        "cos",
        "cumsum",
        "div",
        "embedding",
        "eq",
        "erf",
        "exp",
        "floor",
        "full",
        "ge",
        "gt",
        "index_select",
        "isnan",
        "le",
        "lerp",
        "log",
        "log1p",
        "logical_and",
        "logical_not",
        "logical_or",
        "lt",
        "masked_fill",
        "maximum",
        "mean",
        "minimum",
        "mm",
        "mul",
        "native_batch_norm",
        "native_layer_norm",
        "ne",
        "neg",
        "ones",
        "ones_like",
        "permute",
        "pow",
        "reciprocal",
        "relu",
        "rsqrt",
        "select",
        "sigmoid",
        "sign",
        "sin",
        "slice",
        "split",
        "sqrt",
        "squeeze",
        "stack",
        "sub",
        "sum",
        "t",
        "tanh",
        "threshold_backward",
        "transpose",
        "unbind",
        "unsqueeze",
        "where",
        "zeros",
        "zeros_like",
    ]
)
"""Operations whose function in `torch` is called instead of the overload: it takes 1.0 us where that takes 1.5 us."""

METHODS = frozenset(["view", "expand", "gather", "scatter", "scatter_add", "logsumexp"])
"""Operations that are called quickest as methods of the tensor."""

_KNOWN = frozenset(("Tensor", "default", "Scalar", "Tensor_Scalar", "int", "self", "dim", "dim_IntList", "Dimname"))


def quickest(target: Any) -> Callable:
    """Return the quickest way to call an operation.

    >>> quickest(torch.ops.aten.add.Tensor) is torch.add
    True
    """
    if target in KERNELS:
        return KERNELS[target]
    if isinstance(target, torch._ops.OpOverload):
        name = target._schema.name.removeprefix("aten::")
        if name in METHODS and target._overloadname in ("default", "src", ""):
            return getattr(torch._C.TensorBase, name)
        if name in DIRECT and target._overloadname in _KNOWN and hasattr(_F, name):
            return getattr(_F, name)
        return target._op
    return target
