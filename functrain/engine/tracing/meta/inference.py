"""What the results of an operation look like: shapes, strides and dtypes, before anything is computed.

A view is one of meta tensors. For the common operations on common layouts there are rules. For all else the operation
is run, once for each kind of arguments in a process, on zeros that are laid out as the arguments are: what it returns
is then what it will return. PyTorch's own rules, for meta tensors, are asked last: they import half a compiler, and for
many layouts they do not say what the kernels of a device do.
"""

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from functrain.dispatch_contexts import below_autocast, below_autograd, gradients_on
from functrain.engine.tracing.meta.convolution_rules import CONVOLUTIONS, convolution
from functrain.engine.tracing.meta.geometry import map_tensors, tensors_in
from functrain.engine.tracing.meta.operation_rules import RULES
from functrain.engine.tracing.meta.trial_run import recall, trial_run
from functrain.engine.tracing.operation_facts import facts, writes
from functrain.engine.tracing.refusals import Refused
from functrain.engine.tracing.undeclared import UNDECLARED_ALIASES
from functrain.operators import LAYOUTS


def infer(func: Any, args: Any, kwargs: dict[str, Any], on_meta: bool, ways: Counter[str] | None = None) -> Any:
    """Return meta tensors like the results of an operation; an argument that it writes to and returns is its own.

    Args:
        func: the operation.
        args: its arguments, tensors without memory among them.
        kwargs: further ones.
        on_meta: whether it is told a device, or must be told one because no argument is a tensor.
        ways: where it is counted how the results were found: "view", "write", "learned", "rule", "trial" or "meta".
    """
    ways = Counter() if ways is None else ways
    # With gradients on, as compiled graphs run: some kernels return more then.
    with torch._C._DisableTorchDispatch(), below_autograd(), gradients_on(), below_autocast():
        if _is_view(func):
            ways["view"] += 1
            return func(*map_tensors(_meta, args), **{k: map_tensors(_meta, v) for k, v in kwargs.items()})
        if writes(func, args, kwargs):
            ways["write"] += 1
            return _of_write(func, args, kwargs)
        results, way = recall(func, args, kwargs), "learned"
        if results is None:
            results, way = _by_rule(func, args, kwargs, on_meta), "rule"
        if results is None:
            results, way = _by_trial(func, args, kwargs, on_meta)
        ways[way] += 1
        return results


def _meta(tensor: Any) -> Tensor:
    return tensor.meta


@cache
def _is_view(func: Any) -> bool:
    returned = [r.alias_info for r in func._schema.returns]
    if any(isinstance(source, str) for source, _ in UNDECLARED_ALIASES.get(str(func), ())):
        return True
    return any(a is not None and not a.is_write for a in returned)


def _by_rule(func: Any, args: Any, kwargs: dict[str, Any], on_meta: bool) -> Any:
    if func in CONVOLUTIONS:
        return convolution(func, args, kwargs)
    if func in LAYOUTS:
        return LAYOUTS[func](*map_tensors(_meta, args), **{k: map_tensors(_meta, v) for k, v in kwargs.items()})
    rule = RULES.get(func._schema.name.removeprefix("aten::"))
    if rule is None or func._overloadname.endswith("out") or _reads_bits(args):
        return None
    return rule(*map_tensors(_meta, args), **_on_meta({k: map_tensors(_meta, v) for k, v in kwargs.items()}, on_meta))


def _reads_bits(args: Any) -> bool:
    # A kernel sees a lazily conjugated or negated tensor only after PyTorch has made another of it.
    return any(t.is_conj() or t.is_neg() for t in tensors_in(args))


def _on_meta(kwargs: dict[str, Any], on_meta: bool) -> dict[str, Any]:
    if not on_meta:
        return kwargs
    return {**{k: v for k, v in kwargs.items() if k != "pin_memory"}, "device": torch.device("meta")}


def _by_trial(func: Any, args: Any, kwargs: dict[str, Any], on_meta: bool) -> tuple[Any, str]:
    try:
        return trial_run(func, args, kwargs), "trial"
    except Exception as error:
        if isinstance(error, Refused) and error.kind == "random":
            raise
        # Zeros may be values that it refuses, or they may take too much memory; what is wrong by its shape stays so.
        metas = map_tensors(_meta, args)
        named = _on_meta({k: map_tensors(_meta, v) for k, v in kwargs.items()}, on_meta)
        return _ask(func, metas, named, error), "meta"


def _ask(func: Callable, args: Any, kwargs: dict[str, Any], error: Exception) -> Any:
    try:
        return func(*args, **kwargs)
    except Exception:
        raise error from None


def _of_write(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Return what a write returns: its arguments' own meta tensors, and new ones besides."""
    if _fits_in_place(func, args, kwargs):
        return args[0].meta
    try:
        return trial_run(func, args, kwargs)
    except (RuntimeError, IndexError) as error:
        if isinstance(error, IndexError) and "broadcast" not in str(error):
            raise
        # How many values there must be depends on the mask, and that of zeros is false: the call itself will tell.
        if func is torch.ops.aten.index_put_.default and _has_mask(args[1]) and args[0].dtype is args[2].dtype:
            return args[0].meta
        raise


def _has_mask(indices: Any) -> bool:
    return any(isinstance(index, Tensor) and index.dtype is torch.bool for index in indices)


def _fits_in_place(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    """Return whether an elementwise operation can put its result into its first argument, as far as rules say."""
    if torch.Tag.pointwise not in func.tags or not func._opname.endswith("_") or len(facts(func).writes) != 1:
        return False
    if not isinstance(args[0], Tensor) or func._opname in ("copy_",) or _shares_memory(args):
        return False
    rule = RULES.get(func._opname[:-1])
    if rule is None or _reads_bits(args):
        return False
    made = rule(*map_tensors(_meta, args), **{k: map_tensors(_meta, v) for k, v in kwargs.items()})
    return isinstance(made, Tensor) and made.shape == args[0].shape and torch.can_cast(made.dtype, args[0].dtype)


def _shares_memory(args: Any) -> bool:
    memories = []
    map_tensors(lambda t: memories.append(t.meta.untyped_storage()._cdata), args)
    return len(set(memories)) < len(memories) or 0 in args[0].stride()
