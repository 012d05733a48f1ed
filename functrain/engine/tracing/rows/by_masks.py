"""Functions of PyTorch that write where a mask is true, where `vmap` maps over any of their arguments."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from functrain.engine.tracing.own_functions import in_all_batches
from functrain.engine.tracing.rows.filling import is_mapped, order_of_true
from functrain.engine.tracing.rows.indexing import is_mask, is_number, set_where


def _if_mapped(func: Any) -> Callable[[Callable], Callable]:
    """Make a function do the work of one of PyTorch's where `vmap` maps over a tensor among the arguments."""

    def decorate(answer: Callable) -> Callable:
        @wraps(answer)
        def run(*args: Any, **kwargs: Any) -> Any:
            flat = [*args, *kwargs.values()]
            flat += [t for one in flat if isinstance(one, (list, tuple)) for t in one]
            return answer(func, *args, **kwargs) if is_mapped(*flat) else func(*args, **kwargs)

        return run

    return decorate


def _fill_(func: Any, input: Tensor, mask: Tensor, value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.dim():
        return func(input, mask, value)
    return input.copy_(torch.where(mask.bool(), value.to(input.dtype), input))


def _fill(func: Any, input: Tensor, mask: Tensor, value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.dim():
        return func(input, mask, value)
    return torch.where(mask.bool(), value.to(input.dtype), input)


def _scatter_(_: Any, input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    return input.copy_(_in_order(input, mask.expand(input.shape), source))


def _scatter(_: Any, input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    x, mask = torch.broadcast_tensors(input, mask)
    return _in_order(x, mask, source)


def _in_order(x: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    n = source.numel()
    order = order_of_true(
        mask, 0, n, f"masked_scatter: a mask is true at more places than the source has elements, {n}"
    )
    if n == 0:
        return x
    return torch.where(mask, source.reshape(-1)[order].reshape(mask.shape), x)


def _put_(func: Any, input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    if not any(map(is_mask, indices)):
        return func(input, indices, values, accumulate)
    most = 1 + input.dim() - sum(1 if is_number(one) else one.dim() for one in indices if one is not None)
    most += sum(one.dim() for one in indices if one is not None and not (is_mask(one) or is_number(one)))
    if values.dim() > most:
        raise RuntimeError(
            f"shape mismatch: value tensor of shape {list(values.shape)} cannot be broadcast to an indexing result of "
            f"{most} axes"
        )
    set_where(input, tuple(slice(None) if one is None else one for one in indices), values, accumulate)
    return input


def _put(func: Any, input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    if not any(map(is_mask, indices)):
        return func(input, indices, values, accumulate)
    return _put_(func, in_all_batches(input.clone(), [*indices, values]), indices, values, accumulate)


_ANSWERS = {"masked_fill": _fill, "masked_scatter": _scatter, "index_put": _put}
_IN_PLACE = {"masked_fill_": _fill_, "masked_scatter_": _scatter_, "index_put_": _put_}
_FUNCTIONS = [
    *((getattr(Tensor, name), answer) for name, answer in {**_ANSWERS, **_IN_PLACE}.items()),
    *((getattr(torch, name), answer) for name, answer in _ANSWERS.items()),
    (torch.index_put_, _put_),
]
BY_MASKS: dict[Any, Callable] = {func: _if_mapped(func)(answer) for func, answer in _FUNCTIONS}
"""Function of PyTorch -> what does the same under `vmap`."""
