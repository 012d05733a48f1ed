"""Tensors made of lists that hold tensors, as `torch.tensor([n, 2])`, and indices that are such lists.

PyTorch reads these numbers where no mode sees it. In a trace they are asked for first: they join the signature, or are
refused.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functrain.dispatch_contexts import outside_of_trace, unseen
from functrain.dispatch_state import innermost, vectorizing_levels
from functrain.engine.tracing.recording import Recording
from functrain.engine.tracing.refusals import Refused


def with_values(of: Recording, data: Any) -> Any:
    """Return nested lists with the values of the tensors in them, which a trace that runs is asked for.

    >>> with_values(None, [[1, 2.0], range(2)])  # there is no tensor, so no trace is asked
    [[1, 2.0], range(0, 2)]
    """
    if not is_list(data):
        return data
    made = [_value(of, one) if isinstance(one, Tensor) else with_values(of, one) for one in data]
    return data if all(one is before for one, before in zip(made, data, strict=True)) else made


def is_list(data: Any) -> bool:
    """Return whether PyTorch takes a thing apart as a sequence.

    >>> is_list((1, 2)), is_list("12"), is_list(torch.ones(2))
    (True, False, False)
    """
    kind = type(data)
    if kind is list or kind is tuple:
        return True
    is_array = isinstance(data, Tensor) or hasattr(kind, "__array__") or hasattr(kind, "__array_interface__")
    is_other = is_array or isinstance(data, (str, bytes, bytearray, range, dict)) or torch.is_storage(data)
    return hasattr(kind, "__getitem__") and hasattr(kind, "__len__") and not is_other


def _value(of: Recording, tensor: Tensor) -> Tensor:
    """Return the values of a tensor, one element as PyTorch asks of them."""
    if vectorizing_levels([tensor]):  # each row has its own
        raise Refused("value")
    with outside_of_trace(), unseen():
        return of.value(innermost(tensor))


def making(func: Callable) -> Callable:
    """Return what makes a tensor of data in a trace; the data come first, after the tensor that a method is of.

    Args:
        func: the function of PyTorch.
    """
    is_method = func in (Tensor.new_tensor, Tensor.new)

    def make(of: Recording, *args: Any, **kwargs: Any) -> Any:
        at = int(is_method)
        args = tuple(with_values(of, x) if k == at else x for k, x in enumerate(args))
        named = {k: with_values(of, x) if k in ("data", "obj") else x for k, x in kwargs.items()}
        return func(*args, **named)

    return make


def index_with_values(of: Recording, index: Any) -> Any:
    """Return an index whose lists hold values in place of tensors.

    >>> index_with_values(None, (0, [1, 2]))
    (0, [1, 2])
    """
    if type(index) is tuple:
        return tuple(with_values(of, one) for one in index)
    return with_values(of, index)


MADE_OF_LISTS = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor, Tensor.new)
"""Functions that make a tensor of nested lists."""
