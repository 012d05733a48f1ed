"""The device of the results of an operation, and whether its tensors may be combined."""

from typing import Any

import torch
from torch import Tensor

from functrain.engine.tracing.refusals import Refused

aten = torch.ops.aten

_ANY_DEVICE = frozenset(
    (
        aten.copy_.default,
        aten.copy.default,
        aten.index.Tensor,
        aten.index_put.default,
        aten.index_put_.default,
        aten._unsafe_index.Tensor,
        aten._unsafe_index_put.default,
        aten.slice_scatter.default,
        aten.diagonal_scatter.default,
    )
)
"""Operations whose other arguments may be elsewhere than the first, where the result is."""

_ONE_DTYPE = frozenset(
    (
        aten.mm.default,
        aten.bmm.default,
        aten.addmm.default,
        aten.baddbmm.default,
        aten.mv.default,
        aten.dot.default,
        aten.convolution.default,
    )
)
"""Operations that take tensors of one dtype. Their kernels see to it, and PyTorch's rules for shapes do not."""


def device_of(func: Any, tensors: list[Tensor], asked: Any) -> torch.device:
    """Return the device of the results of an operation, by PyTorch's rule: scalars on the CPU go with anything.

    Args:
        func: the operation.
        tensors: its arguments.
        asked: the device that it names, or None.

    >>> device_of(torch.ops.aten.zeros.default, [], None)
    device(type='cpu')
    """
    if asked is not None:
        device = torch.device(asked)
        return _of_this_thread(device) if device.type == "cuda" and device.index is None else device
    if not tensors or func in _ANY_DEVICE:
        return tensors[0].device if tensors else torch.device("cpu")
    first = tensors[0]
    for t in tensors[1:]:
        if t.device == first.device or _goes_anywhere(t):
            continue
        if not _goes_anywhere(first):
            name = func._schema.name.removeprefix("aten::")
            raise Refused("device", f"{name} combines tensors on {first.device} and {t.device}")
        first = t
    return first.device


def check_dtypes(func: Any, tensors: list[Tensor]) -> None:
    """Refuse what would fail when it is run, as an operation's tensors are of several dtypes.

    `DtypeMismatch` itself is a TypeError, which PyTorch's operators do not let through: a @ b would say that it cannot.

    >>> check_dtypes(torch.ops.aten.mul.Tensor, [torch.ones(1), torch.ones(1, dtype=torch.float64)])
    """
    if func in _ONE_DTYPE and any(t.dtype is not tensors[0].dtype for t in tensors):
        name = func._schema.name.removeprefix("aten::")
        dtypes = ", ".join(str(t.dtype).removeprefix("torch.") for t in tensors)
        raise Refused("dtype", f"{name} takes tensors of one dtype, got {dtypes}")


def _of_this_thread(device: torch.device) -> torch.device:
    return torch.device(device.type, torch.cuda.current_device())


def _goes_anywhere(tensor: Tensor) -> bool:
    return tensor.dim() == 0 and tensor.device.type == "cpu"
