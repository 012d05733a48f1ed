"""Writes in place: allowed on what the forward made and on buffers, which are copies; refused on all else."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parameter import is_lazy

from functrain.dispatch_state import is_traced, is_transformed
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
    old, new = args
    run.check(args)
    run.guard(old, "its .data is set")
    if id(old) in run.slots and (old.shape, old.dtype, old.device) == (new.shape, new.dtype, new.device):
        old.detach().copy_(new.detach())  # a vmap can give it no other memory
        return None
    run.touched.add(id(old))
    return func(*args, **kwargs)


# Writes to many tensors at once


@rule(*(f for name, f in vars(torch).items() if name.startswith("_foreach_") and name.endswith("_")))
def _write_each(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Write tensor by tensor where PyTorch counts no such writes (a trace) or has no rule for them (`vmap`)."""
    run.check(args[0])
    run.guard_all(args[:1], func.__name__)
    if not is_traced() and not is_transformed():
        return func(*args, **kwargs)
    options = {name: value for name, value in kwargs.items() if name in ("alpha", "value", "non_blocking")}
    others = [*args[1:], *(value for name, value in kwargs.items() if name not in options)]
    name = func.__name__.removeprefix("_foreach_")
    for k, tensor in enumerate(args[0]):
        _write_one(name, tensor, *(_part(arg, k) for arg in others), **options)


def _part(arg: Any, k: int) -> Any:
    """Return the share of the tensor number k in an argument: one of a list, or of a tensor of numbers."""
    return arg[k] if isinstance(arg, list | tuple) or (isinstance(arg, Tensor) and arg.dim() == 1) else arg


def _write_one(name: str, tensor: Tensor, *others: Any, **options: Any) -> None:
    if name in ("copy_", "zero_"):
        getattr(tensor, name)(*others, **options)
        return
    # By values, as vmap has no rule for some that write. Of one tensor, `maximum` takes no numbers.
    of_one = {"maximum_": Tensor.clamp_min, "minimum_": Tensor.clamp_max}.get(name) or getattr(Tensor, name[:-1])
    if len(others) == 3:
        options, others = {"value": others[2]}, others[:2]
    tensor.copy_(of_one(tensor, *others, **options))


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


@rule(F.normalize)
def _normalize(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Write by `copy_` where `out=` is given, as spectral norm gives it: under `vmap` no row has an `out=`."""
    run.check(args)
    out = kwargs.get("out", args[4] if len(args) > 4 else None)
    if out is None:
        return func(*args, **kwargs)
    run.guard(out, "out")
    return out.copy_(func(*args[:4], **{**kwargs, "out": None}))
