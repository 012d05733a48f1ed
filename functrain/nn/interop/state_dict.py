"""The way to and from PyTorch's `state_dict`: one flat dict of parameters and buffers by dotted name.

A `serial` of layers has the names of the `torch.nn.Sequential` of the same layers, so each loads what the other saved:

>>> import torch
>>> from functrain import nn, random
>>> model = nn.serial(nn.dense(50), nn.relu, nn.dense(10))
>>> params, buffers = model.init(random.key(0), torch.zeros(1, 784))
>>> module = torch.nn.Sequential(torch.nn.Linear(784, 50), torch.nn.ReLU(), torch.nn.Linear(50, 10))
>>> module.load_state_dict(to_state_dict(params, buffers))
<All keys matched successfully>
>>> params, buffers = from_state_dict(module.state_dict(), params, buffers)
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from functrain import tree
from functrain.errors import DuplicateName, TreeMismatch
from functrain.nn.model import Buffers, Params


def to_state_dict(params: Params, buffers: Buffers) -> dict[str, Tensor]:
    """Return parameters and buffers as one flat dict by dotted name, layer by layer; the tensors are shared.

    Args:
        params: nested dicts of tensors, as a model's `init` returns them.
        buffers: the same.

    Raises:
        DuplicateName: a parameter and a buffer have one name.

    See also: `from_state_dict`.

    >>> import torch
    >>> to_state_dict({"0": {"weight": torch.ones(1)}}, {"0": {"running_mean": torch.zeros(1)}})
    {'0.weight': tensor([1.]), '0.running_mean': tensor([0.])}
    """
    flat: dict[str, Tensor] = {}
    _collect(flat, "", params, buffers)
    return flat


def _collect(flat: dict[str, Tensor], prefix: str, *parts: Mapping[str, Any]) -> None:
    names = dict.fromkeys(name for part in parts for name in part)
    for name in names:
        held = [part[name] for part in parts if name in part]
        if all(isinstance(h, Mapping) for h in held):
            _collect(flat, f"{prefix}{name}.", *held)
        elif len(held) == 1:
            flat[prefix + name] = held[0]
        else:
            raise DuplicateName(f"a parameter and a buffer have the name {prefix + name}; rename one of them")


def from_state_dict(state_dict: Mapping[str, Tensor], params: Params, buffers: Buffers) -> tuple[Params, Buffers]:
    """Return parameters and buffers with the values of a `state_dict`, copied.

    Args:
        state_dict: tensors by dotted name, as `torch.nn.Module.state_dict` or `to_state_dict` returns them.
        params: what the names, shapes, dtypes and devices are to be, as the model's `init` returns it.
        buffers: the same.

    Returns:
        (params, buffers) of the structure given, on the devices given. Nothing given is changed.

    Raises:
        TreeMismatch: names are missing or unexpected, or a shape or dtype differs; the message lists them.

    See also: `to_state_dict`.

    >>> import torch
    >>> from_state_dict({"weight": torch.ones(2)}, {"weight": torch.zeros(2)}, {})
    ({'weight': tensor([1., 1.])}, {})
    """
    _check_fits(state_dict, to_state_dict(params, buffers))

    def value(path: str, leaf: Tensor) -> Tensor:
        return state_dict[path].detach().to(leaf.device, copy=True)

    return tree.map_with_path(value, params), tree.map_with_path(value, buffers)


def _check_fits(state_dict: Mapping[str, Any], wanted: dict[str, Tensor]) -> None:
    lines = [f"  missing: {name}, {tree.describe(leaf)}" for name, leaf in wanted.items() if name not in state_dict]
    lines += [f"  unexpected: {name}" for name in state_dict if name not in wanted]
    for name, leaf in wanted.items():
        if name in state_dict and tree.describe(state_dict[name]) != tree.describe(leaf):
            got = tree.describe(state_dict[name])
            lines.append(f"  {name}: expected {tree.describe(leaf)}, got {got}")
    if lines:
        shown = lines if len(lines) <= 10 else [*lines[:9], f"  and {len(lines) - 9} more"]
        raise TreeMismatch("\n".join(["the state_dict does not fit the model:", *shown]))
