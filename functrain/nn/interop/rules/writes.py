"""Writes in place: allowed on what the forward made and on buffers, which are copies; refused on all else."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parameter import is_lazy

from functrain.errors import InvalidArgument
from functrain.nn.interop.rules.running import RULES, Running, rule


def _writers() -> list[Any]:
    """Return the functions and methods that write to their first argument, by PyTorch's rule of naming them."""
    places = (Tensor, torch, torch._C._nn)  # pyright: ignore
    named = [getattr(place, name) for place in places for name in dir(place) if _is_writer(name)]
    return [f for f in named if callable(f) and f not in RULES]


def _is_writer(name: str) -> bool:
    if name.startswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and name[3:-2] in _OPERATORS)
    return name.endswith("_") and not name.startswith("_") and name not in _HARMLESS


_OPERATORS = (
    "add",
    "sub",
    "mul",
    "div",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
    "matmul",
)
_HARMLESS = ("requires_grad_", "share_memory_", "rename_", "detach_", "align_as_", "is_shared_")


@rule(*_writers())
def _write(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    run.check(args)
    run.guard(args[0], getattr(func, "__name__", "a write"))
    return func(*args, **kwargs)


@rule(Tensor.data.__get__)  # pyright: ignore
def _data(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    # The same memory without a gradient, but writes to it are counted, so that new values of buffers are seen.
    run.check(args)
    return func(*args, **kwargs) if is_lazy(args[0]) else args[0].detach()


@rule(Tensor.data.__set__)  # pyright: ignore
def _set_data(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    run.guard(args[0], "its .data is set")
    run.touched.add(id(args[0]))
    return func(*args, **kwargs)


@rule(getattr(torch, "_cudnn_rnn_flatten_weight", None))
def _leave_weights(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> None:
    """Leave the weights of a recurrent network where they are; on CUDA they would be moved into one piece of memory."""


@rule(F.embedding, F.embedding_bag)
def _embedding(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    names = ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")
    if func is F.embedding_bag:
        names = ("input", "weight", "offsets", "max_norm", "norm_type", "scale_grad_by_freq", "mode", "sparse")
    bound = dict(zip(names, args, strict=False)) | kwargs
    run.check(args)
    if bound.get("max_norm") is not None:
        raise InvalidArgument(
            f"from_module: {run.place() or 'the module'} looks up an embedding with max_norm, which changes the "
            "weight in place; leave max_norm out, and bound the norms of the rows in the loss or after each update"
        )
    if bound.get("sparse") and torch.is_grad_enabled():
        raise InvalidArgument(
            f"from_module: {run.place() or 'the module'} looks up an embedding with sparse=True, whose gradients are "
            "sparse tensors; functrain's are dense: leave sparse out"
        )
    return func(*args, **kwargs)
