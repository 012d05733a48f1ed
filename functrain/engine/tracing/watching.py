"""What no operation shows: functions of PyTorch that a trace must see before they reach the operations.

`tolist` and `numpy` read the memory of a tensor that is closed over without any operation, and instance norm at rest
writes what it read.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Watching(TorchFunctionMode):
    """The mode in which a trace answers some functions itself.

    Args:
        value: tensor -> its values, where a trace may know them.
    """

    def __init__(self, value: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._value = value

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Answer a function, or let it run."""
        if func in _READS:
            with torch._C._DisableTorchDispatch():
                return func(self._value(args[0]), *args[1:], **(kwargs or {}))
        if func is F.instance_norm:
            return _instance_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


_READS: frozenset[Any] = frozenset((Tensor.tolist, Tensor.numpy, Tensor.__array__))


def _instance_norm(x, mean=None, var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5):
    """Normalise instances; at rest it is batch norm at rest, where PyTorch's writes the statistics that it read."""
    if use_input_stats:
        return F.instance_norm(x, mean, var, weight, bias, use_input_stats, momentum, eps)
    return F.batch_norm(x, mean, var, weight, bias, False, momentum, eps)
