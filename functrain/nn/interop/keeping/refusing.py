"""Modules that cannot be made pure, and the words for them."""

from typing import Any

import torch
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from functrain.errors import InvalidArgument
from functrain.nn.interop.keeping.walking import is_lazy_module

_WRAPPERS = {
    "DataParallel": "pass what it wraps, module.module",
    "DistributedDataParallel": "pass what it wraps, module.module",
    "FullyShardedDataParallel": "pass what it wraps, module.module",
    "OptimizedModule": "pass the module that was given to torch.compile; functrain.jit compiles the whole step",
}
_OLD_HOOKS = {WeightNorm: "weight_norm", SpectralNorm: "spectral_norm"}


def check_module(module: Any) -> None:
    """Raise `InvalidArgument` for what is no module, or one whose computation cannot be seen."""
    if isinstance(module, type) and issubclass(module, torch.nn.Module):
        raise InvalidArgument(f"module must be a torch.nn.Module, got the class {module.__name__}; call it first")
    if not isinstance(module, torch.nn.Module):
        raise InvalidArgument(
            f"module must be a torch.nn.Module, got {type(module).__name__}; a function of a tensor is a layer as it is"
        )
    for path, part in module.named_modules():
        _check_part(path, part)
    for name, parameter in module.named_parameters():
        hooks = getattr(parameter, "_backward_hooks", None), getattr(parameter, "_post_accumulate_grad_hooks", None)
        if any(hooks):
            raise InvalidArgument(
                f"from_module: the parameter {name} has a hook on its gradient, which would be lost; change gradients "
                "by a transform in front of the optimizer"
            )


def _check_part(path: str, part: torch.nn.Module) -> None:
    where, kind = path or "the module", type(part).__name__
    if kind in _WRAPPERS:
        raise InvalidArgument(f"from_module: {where} is a {kind}; {_WRAPPERS[kind]}")
    if isinstance(part, torch.jit.ScriptModule):
        raise InvalidArgument(
            f"from_module: {where} is compiled by torch.jit, so that its draws and writes cannot be seen; pass the "
            "module it was made from"
        )
    if is_lazy_module(part) and part.cls_to_become is None:
        raise InvalidArgument(
            f"from_module: {where} is a lazy module of its own kind, which does not say what it becomes "
            "(cls_to_become); call the module once with an example first"
        )
    if part._backward_hooks or part._backward_pre_hooks:
        raise InvalidArgument(
            f"from_module: {where} has a backward hook, which a pure function cannot call; change gradients by a "
            "transform in front of the optimizer, and look at activations with nn.capture"
        )
    for hook in part._forward_pre_hooks.values():
        name = _OLD_HOOKS.get(type(hook))  # pyright: ignore
        if name:
            raise InvalidArgument(
                f"from_module: {where} has torch.nn.utils.{name}, which keeps what it computes on the module; take it "
                f"off with torch.nn.utils.remove_{name} and use torch.nn.utils.parametrizations.{name}"
            )
