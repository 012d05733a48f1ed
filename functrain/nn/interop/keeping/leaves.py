"""The parameters and buffers of a module as values: their names, and the way to and from nested dicts."""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from functrain import tree
from functrain.errors import TreeMismatch
from functrain.nn.model import Buffers, Params

PARAMETER, FROZEN, BUFFER = "parameter", "frozen parameter", "buffer"


@attrs.frozen(eq=False)
class Leaves:
    """The tensors that a module registers, each once, however many names it has.

    Attributes:
        names: the first name of each, dotted.
        kinds: what each is: a parameter, a frozen one (`requires_grad=False`, kept with the buffers), or a buffer.
        own: the values that the module has, as copies of functrain's own.
        originals: id -> (reference, name) of the module's tensors, to tell when one of them is met.
        aliases: further name -> first name, of those tied.
        params: nested dict by name, to the number of each parameter.
        buffers: the same for the others.
        unchanging: (what a message calls it, number) of each that the forward may not write to.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    own: tuple[Tensor, ...]
    originals: dict[int, tuple[weakref.ref, str]]
    aliases: Mapping[str, str]
    params: dict[str, Any]
    buffers: dict[str, Any]
    unchanging: list[tuple[str, int]]

    def own_tensors(self) -> list[tuple[str, Tensor | None]]:
        """Return the module's own tensors by name, None for one that is no more."""
        return [(name, reference()) for reference, name in self.originals.values()]


def leaves_of(module: torch.nn.Module) -> Leaves:
    """Return the registered tensors of a module.

    >>> leaves_of(torch.nn.BatchNorm1d(2)).names
    ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
    """
    first: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    named = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    for name, tensor in named:
        first_name = first.setdefault(id(tensor), name)
        if first_name == name:
            tensors[name] = tensor
        else:
            aliases[name] = first_name
    registered = {name for name, _ in module.named_parameters()}
    kinds = {name: _kind(tensor, name in registered) for name, tensor in tensors.items()}
    numbers = {name: number for number, name in enumerate(tensors)}
    return Leaves(
        tuple(tensors),
        tuple(kinds.values()),
        tuple(map(_copy, tensors.values())),
        {id(tensor): (weakref.ref(tensor), name) for name, tensor in tensors.items()},
        aliases,
        nest({name: number for name, number in numbers.items() if kinds[name] == PARAMETER}),
        nest({name: number for name, number in numbers.items() if kinds[name] != PARAMETER}),
        [(f"the {kinds[name]} {name}", number) for name, number in numbers.items() if kinds[name] != BUFFER],
    )


def _copy(tensor: Tensor) -> Tensor:
    return tensor if is_lazy(tensor) else tensor.detach().clone()


def _kind(tensor: Tensor, registered: bool) -> str:
    if not registered:
        return BUFFER
    return PARAMETER if tensor.requires_grad else FROZEN


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dict by dotted name as nested dicts.

    >>> nest({"0.weight": 1, "0.bias": 2, "scale": 3})
    {'0': {'weight': 1, 'bias': 2}, 'scale': 3}
    """
    made: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split(".")
        place = made
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = leaf
    return made


def gather(leaves: Leaves, params: Params, buffers: Buffers) -> list[Any]:
    """Return the values by number.

    Raises:
        TreeMismatch: an entry is missing, or there is one that the module does not have.
    """
    values: list[Any] = [None] * len(leaves.names)
    try:
        _gather(leaves.params, params, values)
        _gather(leaves.buffers, buffers, values)
    except (KeyError, TypeError, AttributeError, _Surplus):
        _explain(leaves, params, buffers)
        raise
    return values


class _Surplus(Exception):
    """There are more entries than there should be; never leaves this module."""


def _gather(numbers: dict[str, Any], held: Any, values: list[Any]) -> None:
    if len(held) != len(numbers):
        raise _Surplus
    for name, number in numbers.items():
        if type(number) is int:
            values[number] = held[name]
        else:
            _gather(number, held[name], values)


def _explain(leaves: Leaves, params: Any, buffers: Any) -> None:
    lines = []
    for what, numbers, held in (("params", leaves.params, params), ("buffers", leaves.buffers, buffers)):
        wanted = {path: leaves.own[number] for path, number in tree.leaves_with_path(numbers)}
        got = dict(tree.leaves_with_path(held)) if isinstance(held, Mapping) else {}
        lines += [f"  {what} lack {name}, {tree.describe(leaf)}" for name, leaf in wanted.items() if name not in got]
        lines += [f"  {what} have {name}, which the module does not" for name in got if name not in wanted]
    if lines:
        shown = lines if len(lines) <= 10 else [*lines[:9], f"  and {len(lines) - 9} more"]
        advice = "pass what this model's init returned:"
        raise TreeMismatch(
            "\n".join([f"from_module: params and buffers must be those of the module; {advice}", *shown])
        )


def spread(numbers: dict[str, Any], values: Sequence[Any]) -> dict[str, Any]:
    """Return nested dicts of the values at these numbers."""
    return {name: values[number] if type(number) is int else spread(number, values) for name, number in numbers.items()}


def misfits(leaves: Leaves, values: Sequence[Any]) -> list[str]:
    """Return what a line each says of values that have not the shape or dtype that the module has."""
    return [
        f"{name} is {tree.describe(value)}, the module's own is {tree.describe(own)}"
        for name, value, own in zip(leaves.names, values, leaves.own, strict=True)
        if isinstance(value, Tensor) and value.shape != own.shape
    ]
