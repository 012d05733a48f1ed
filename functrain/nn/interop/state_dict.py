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

import attrs
from torch import Tensor

from functrain import tree
from functrain.errors import DuplicateName, InvalidArgument, TreeMismatch
from functrain.nn.model import Buffers, Params
from functrain.records import reprs


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


@attrs.frozen(repr=False)
class Report:
    """What `from_state_dict(..., strict=False)` did, each a tuple of dotted names.

    Attributes:
        matched: taken from the state dict.
        missing: not in it; they kept their values.
        unexpected: in it, and of no use.
        wrong_shape: of another shape or dtype; they kept their values.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[str, ...]

    __repr__ = reprs.record


def from_state_dict(state_dict: Mapping[str, Tensor], params: Params, buffers: Buffers, strict: bool = True) -> Any:
    """Return parameters and buffers with the values of a `state_dict`, copied.

    Names that share one tensor in the state dict (tied weights) share one here. A name that the model does not have is
    no surplus where it shares the tensor of one that it has: `from_module` has a tied weight by its first name alone.

    Args:
        state_dict: tensors by dotted name, as `torch.nn.Module.state_dict` or `to_state_dict` returns them.
        params: what the names, shapes, dtypes and devices are to be, as the model's `init` returns it.
        buffers: the same.
        strict: whether all names, shapes and dtypes must agree; if not, what does not agree keeps its values, and a
            `Report` says which.

    Returns:
        (params, buffers) of the structure and on the devices of the arguments, which are not changed; with
        `strict=False`, (params, buffers, report).

    Raises:
        InvalidArgument: state_dict is no mapping.
        TreeMismatch: names are missing or unexpected, or a shape or dtype differs; the message lists them. With
            `strict=False`, when nothing at all agrees.

    See also: `to_state_dict`.

    >>> import torch
    >>> from_state_dict({"weight": torch.ones(2)}, {"weight": torch.zeros(2)}, {})
    ({'weight': tensor([1., 1.])}, {})
    >>> body = {"0": {"weight": torch.zeros(2)}, "head": {"weight": torch.zeros(3)}}
    >>> params, _, report = from_state_dict({"0.weight": torch.ones(2)}, body, {}, strict=False)
    >>> params, report.missing
    ({'0': {'weight': tensor([1., 1.])}, 'head': {'weight': tensor([0., 0., 0.])}}, ('head.weight',))
    """
    if not isinstance(state_dict, Mapping):
        raise InvalidArgument(
            f"state_dict must be tensors by name, got {type(state_dict).__name__}; a module's is module.state_dict()"
        )
    wanted = to_state_dict(params, buffers)
    report = _compare(state_dict, wanted)
    if (strict and report.missing + report.unexpected + report.wrong_shape) or (wanted and not report.matched):
        raise _misfit(state_dict, wanted, report)
    copies: dict[Any, Tensor] = {}
    taken = frozenset(report.matched)

    def value(path: str, leaf: Tensor) -> Tensor:
        return _copy_once(copies, state_dict[path], leaf.device) if path in taken else leaf

    loaded = tree.map_with_path(value, params), tree.map_with_path(value, buffers)
    return loaded if strict else (*loaded, report)


def _copy_once(copies: dict[Any, Tensor], tensor: Tensor, device: Any) -> Tensor:
    place = _place(tensor), device
    if tensor.numel() == 0:  # shares no memory with any other
        return tensor.detach().to(device, copy=True)
    if place not in copies:
        copies[place] = tensor.detach().to(device, copy=True)
    return copies[place]


def _place(tensor: Tensor) -> Any:
    return tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.shape, tensor.stride()


def _ties(state_dict: Mapping[str, Any], names: list[str]) -> set[str]:
    """Return the names that share the tensor of one of these."""
    places = {_place(state_dict[name]) for name in names if state_dict[name].numel()}
    return {name for name, value in state_dict.items() if isinstance(value, Tensor) and _place(value) in places}


def _compare(state_dict: Mapping[str, Any], wanted: dict[str, Tensor]) -> Report:
    here = [name for name in wanted if name in state_dict]
    fits = {name: tree.describe(state_dict[name]) == tree.describe(wanted[name]) for name in here}
    others = [name for name in state_dict if name not in wanted]
    tied = _ties(state_dict, [name for name in here if fits[name]]) if others else set()
    return Report(
        tuple(name for name in here if fits[name]),
        tuple(name for name in wanted if name not in state_dict),
        tuple(str(name) for name in others if name not in tied),
        tuple(name for name in here if not fits[name]),
    )


def _misfit(state_dict: Mapping[str, Any], wanted: dict[str, Tensor], report: Report) -> TreeMismatch:
    lines = [f"  missing: {name}, {tree.describe(wanted[name])}" for name in report.missing]
    lines += [f"  unexpected: {name}" for name in report.unexpected]
    for name in report.wrong_shape:
        lines.append(f"  {name}: expected {tree.describe(wanted[name])}, got {tree.describe(state_dict[name])}")
    shown = lines if len(lines) <= 10 else [*lines[:9], f"  and {len(lines) - 9} more"]
    return TreeMismatch("\n".join(["the state_dict does not fit the model:", *shown]))
