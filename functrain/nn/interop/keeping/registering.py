"""What a module registers while it runs: a parameter or buffer that `init` did not see would be new at each call."""

from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any, NoReturn

import attrs
import torch

from functrain.errors import TreeMismatch
from functrain.nn.interop.keeping.copying import Recipe

_DICTS = ("_parameters", "_buffers", "_modules")


@attrs.frozen(eq=False)
class Registers:
    """Where modules register parameters, buffers and submodules.

    Attributes:
        numbers: the number of each such dict.
        dicts: the parts of an application -> these dicts.
        sizes: how many names each has.
        empty: (number of the dict, name) of each name that is registered without a value.
        owners: for each dict the path of its module, the number of that, and which of its dicts it is.
    """

    numbers: list[int]
    dicts: Callable[[list[Any]], Any]
    sizes: list[int]
    empty: list[tuple[int, str]]
    owners: dict[int, tuple[str, int, str]]


def registers_of(made: Recipe) -> Registers:
    """Return where the modules of a recipe register what they have."""
    paths = {number: path for path, number in made.modules.items()}
    owners = {n: (paths[owner], owner, key) for owner, key, n in made.links if owner in paths and key in _DICTS}
    held = {number: own for number, own, _ in made.containers}
    filled = {(owner, key) for owner, key, _ in [*made.links, *made.slots]}
    empty = [(n, name) for n in owners for name in held[n] if (n, name) not in filled and held[n][name] is None]
    return Registers(list(owners), itemgetter(*owners), [len(held[n]) for n in owners], empty, owners)


def check_registers(registers: Registers, parts: list[Any]) -> None:
    """Raise `TreeMismatch` where a forward registered what would have to be kept.

    Args:
        registers: where that could be.
        parts: the dict or list of each thing, after the forward.
    """
    if list(map(len, registers.dicts(parts))) != registers.sizes:  # a fifth of a loop's time
        for number, size in zip(registers.numbers, registers.sizes, strict=True):
            if len(parts[number]) > size:
                _check_new(registers, parts, number, list(parts[number])[size:])
    for number, name in registers.empty:
        if parts[number].get(name) is not None:
            _check_new(registers, parts, number, [name])


def _check_new(registers: Registers, parts: list[Any], number: int, names: list[str]) -> None:
    path, owner, which = registers.owners[number]
    for name in names:
        where, value = f"{path}.{name}" if path else name, parts[number][name]
        if which == "_parameters" and value is not None:
            _refuse("parameter", where)
        if which == "_buffers" and value is not None and name not in parts[owner]["_non_persistent_buffers_set"]:
            _refuse("buffer", where)
        if which == "_modules" and value is not None:
            for kind, inner in _kept_by(value):
                _refuse(kind, f"{where}.{inner}")


def _kept_by(module: torch.nn.Module) -> Iterator[tuple[str, str]]:
    yield from (("parameter", name) for name, _ in module.named_parameters())
    yield from (("buffer", name) for name in module.state_dict())


def _refuse(kind: str, name: str) -> NoReturn:
    advice = "" if kind == "parameter" else "; what each call may compute anew is registered with persistent=False"
    raise TreeMismatch(
        f"from_module: the forward registers the {kind} {name}, which init did not return, so that each application "
        f"would begin with a new one; register it in the constructor, with its first value{advice}"
    )
