"""The first parameters and buffers: the module's own, or fresh ones drawn from a key by its own methods."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy

from functrain import random, tree
from functrain.errors import InvalidArgument
from functrain.nn.interop.keeping.copying import fresh as made_fresh
from functrain.nn.interop.keeping.leaves import spread
from functrain.nn.interop.keeping.original import Kept
from functrain.nn.interop.rules.running import Running
from functrain.nn.mode import Mode
from functrain.nn.model import Buffers, Params

Values = list[Tensor]


def first_values(
    kept: Kept, key: Tensor, example: Any, fresh: bool, call: Callable[[torch.nn.Module], Any]
) -> tuple[Params, Buffers]:
    """Return the first parameters and buffers, on the device of the example.

    Args:
        kept: what is kept of the module.
        key: where fresh values are drawn from.
        example: an input.
        fresh: whether to draw them, instead of those that the module has.
        call: a function that applies a module to the example, which gives lazy modules their shapes.
    """
    random.check_key(key)
    with torch.no_grad():
        if any(map(is_lazy, kept.leaves.own)):
            values = _materialise(kept, key, call)
        elif fresh:
            values = _draw(kept, key)
        else:
            values = [own.clone() for own in kept.leaves.own]
        device = next((leaf.device for leaf in tree.leaves(example) if isinstance(leaf, Tensor)), None)
        _check_memory(kept, device)
        values = values if device is None else [value.to(device) for value in values]
    return spread(kept.leaves.params, values), spread(kept.leaves.buffers, values)


def _check_memory(kept: Kept, device: torch.device | None) -> None:
    for name, own in zip(kept.leaves.names, kept.leaves.own, strict=True):
        if own.device.type == "meta" and (device is None or device.type != "meta"):
            raise InvalidArgument(
                f"from_module: {name} is on the device meta, where it has a shape and no values; give the module "
                "memory and values first: module.to_empty(device=...) and then load_state_dict, or its own methods"
            )


def _has_parameters(module: torch.nn.Module) -> bool:
    return any(parameter is not None for parameter in module._parameters.values())


def _draw(kept: Kept, key: Tensor) -> Values:
    # Made of the key, so that under a vmap over keys there is one for each row to draw into.
    values = [key.new_empty(own.shape, dtype=own.dtype).to(own.device).copy_(own) for own in kept.leaves.own]
    things, parts = made_fresh(kept.recipe, values, train=True)
    modules = {path: things[number] for path, number in kept.recipe.modules.items()}
    missing = []
    for path in reversed(modules):  # parts first, as a constructor does
        reset = _reset(path, modules)
        if reset is not None:
            with Running(Mode(True, random.fold_in(key, path)), {}, kept.leaves.originals):
                reset()
        elif _has_parameters(modules[path]):
            missing.append(path or "the module itself")
    if missing:
        raise InvalidArgument(
            f"from_module: fresh=True needs a reset_parameters of each submodule that holds parameters, and "
            f"{', '.join(missing[:10])} has none; add it, or take the module's own values (fresh=False)"
        )
    return _values_of(kept, parts, values)


def _values_of(kept: Kept, parts: list[Any], values: Values) -> Values:
    after = list(values)
    for owner, key, number in kept.recipe.slots:
        now = parts[owner].get(key) if isinstance(parts[owner], dict) else parts[owner][key]
        if isinstance(now, Tensor):
            after[number] = now.detach()
    return after


def _reset(path: str, modules: dict[str, torch.nn.Module]) -> Callable[[], Any] | None:
    """Return the function that gives the submodule at a path new values, None where there is none."""
    module = modules[path]
    for name in ("reset_parameters", "_reset_parameters"):
        if callable(getattr(module, name, None)):
            return getattr(module, name)
    if not _has_parameters(module):
        return None
    parents = path.split(".")
    for k in range(len(parents), -1, -1):
        above = modules.get(".".join(parents[:k]))
        initialise = getattr(above, "_init_weights", None)
        if callable(initialise):
            return lambda: initialise(module)
    return None


def _materialise(kept: Kept, key: Tensor, call: Callable[[torch.nn.Module], Any]) -> Values:
    """Return the values after the module is applied to the example, which tells lazy modules their shapes."""
    values = [_waiting(own) if is_lazy(own) else own.clone() for own in kept.leaves.own]
    things, parts = made_fresh(kept.recipe, values, train=False)
    for number, kind in kept.lazy.items():
        things[number].__class__, becomes = kind, type(things[number])
        parts[number]["forward"] = functools.partial(_first_forward, things[number], becomes)
    paths = {id(things[number]): path for path, number in kept.recipe.modules.items()}
    with Running(Mode(False, key), paths, kept.leaves.originals):
        call(things[0])
    return _values_of(kept, parts, values)


def _waiting(own: Any) -> Any:
    if isinstance(own, UninitializedParameter):
        return UninitializedParameter(own.requires_grad, own.device, own.dtype)  # pyright: ignore
    return UninitializedBuffer(False, own.device, own.dtype)  # pyright: ignore


def _first_forward(module: Any, becomes: type, *args: Any, **kwargs: Any) -> Any:
    module.initialize_parameters(*args, **kwargs)
    del vars(module)["forward"]
    module.__class__ = becomes
    return module.forward(*args, **kwargs)
