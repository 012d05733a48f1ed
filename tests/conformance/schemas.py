"""A search for operations whose schemas hide a write or an alias.

`python -m tests.conformance.schemas` runs the long search, five minutes or more, and prints what it found and where.

The search watches every aten operation below autograd, forward and backward, while the files `schemas_*.py` make
PyTorch run as many of them as they can. A schema hides a write where the bytes of an argument's storage change without
a mark `!` on that argument; it hides an alias where a return shares its storage with an argument, or with another
return, and the marks do not say so. Operations made of others are seen as those others.
"""

import ctypes
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from attrs import frozen
from torch.utils._python_dispatch import TorchDispatchMode


@frozen
class Finding:
    """What a schema does not say.

    `what` is the name of the argument written, or a pair: the argument (by name) or return (by position) whose memory
    the second, a return (by position), shares.
    """

    overload: str
    what: str | tuple[str | int, int]


# The memory of tensors


def tensors(value: Any) -> list[torch.Tensor]:
    """The tensors of one argument or return: itself, or those in a list."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [item for item in value if isinstance(item, torch.Tensor)] if isinstance(value, (list, tuple)) else []


def memory(value: Any) -> list[torch.UntypedStorage]:
    """The storages of one argument or return that have bytes in the CPU's memory.

    Sparse and mkldnn tensors have none that can be compared; a tensor of lazy zeros has a size but no bytes.
    """
    strided = [item for item in tensors(value) if item.layout is torch.strided and item.device.type == "cpu"]
    storages = [item.untyped_storage() for item in strided if not item._is_zerotensor()]
    return [storage for storage in storages if storage.nbytes() and storage.data_ptr()]


def content(storage: torch.UntypedStorage) -> bytes:
    return ctypes.string_at(storage.data_ptr(), storage.nbytes())


@frozen
class Slot:
    """An argument or return of a call: its key (name or position), its mark in the schema and its memory."""

    key: str | int
    mark: Any
    storages: list[torch.UntypedStorage]

    @property
    def identities(self) -> set[int]:
        """Addresses of storages tell apart what lives at once: all are held while they are compared."""
        return {storage._cdata for storage in self.storages}

    @property
    def is_written(self) -> bool:
        return self.mark is not None and self.mark.is_write


def arguments(func: Any, args: tuple, kwargs: dict) -> list[Slot]:
    given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    slots = [Slot(item.name, item.alias_info, memory(given.get(item.name))) for item in func._schema.arguments]
    return [slot for slot in slots if slot.storages]


def returns(func: Any, result: Any) -> list[Slot]:
    marks = [item.alias_info for item in func._schema.returns]
    values = [result] if len(marks) == 1 else list(result or ())
    return [Slot(position, marks[position], memory(value)) for position, value in enumerate(values)]


# What a call did against what its schema says


def may_share(argument: Slot, result: Slot) -> bool:
    """Whether the schema says so. The marks of lists keep their letters to themselves, so those fit any."""
    if argument.mark is None or result.mark is None:
        return False
    mine, theirs = argument.mark.before_set, result.mark.after_set
    return not mine or not theirs or bool(mine & theirs)


def hidden_writes(before: list[Slot], changed: set[int]) -> Iterator[str]:
    declared = set().union(*(slot.identities for slot in before if slot.is_written))
    yield from (str(slot.key) for slot in before if slot.identities & (changed - declared))


def hidden_aliases(before: list[Slot], after: list[Slot]) -> Iterator[tuple[str | int, int]]:
    """Returns against arguments; then returns against each other, where they share no argument's memory."""
    for result, storage in ((slot, storage) for slot in after for storage in slot.storages):
        owners = [slot for slot in before if storage._cdata in slot.identities]
        # Where two arguments share memory themselves, nobody can tell which one was returned: say the first.
        if owners and not any(may_share(owner, result) for owner in owners):
            yield owners[0].key, int(result.key)
    known = set().union(*(slot.identities for slot in before))
    fresh = [(int(slot.key), item._cdata) for slot in after for item in slot.storages if item._cdata not in known]
    yield from {(one[0], two[0]) for one, two in itertools.combinations(fresh, 2) if one[1] == two[1]}


def false_views(before: list[Slot], after: list[Slot]) -> Iterator[int]:
    """Returns marked as views that have memory of their own after all: harmless, so only counted."""
    known = set().union(*(slot.identities for slot in before))
    for slot in after:
        if slot.mark is not None and not slot.is_written and slot.identities - known:
            yield int(slot.key)


def describe(value: Any) -> str:
    """An argument in a few characters, to tell on which condition something happens."""
    if isinstance(value, torch.Tensor):
        flags = "conj" * value.is_conj() + "neg" * value.is_neg()
        strides = f"/{tuple(value.stride())}" if value.layout is torch.strided else f"/{value.layout}"
        return f"{str(value.dtype)[6:]}{tuple(value.shape)}{strides}{flags}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(describe, value))}]"
    return repr(value)


class Watch(TorchDispatchMode):
    """Compares what each operation does with what its schema says; `label` says what is running."""

    def __init__(self):
        super().__init__()
        self.label = ""
        self.failures = 0
        self.calls: Counter[str] = Counter()
        self.found: Counter[Finding] = Counter()
        self.false_views: Counter[str] = Counter()
        self.examples: dict[Finding, list[str]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        before = arguments(func, args, kwargs)
        old = {storage._cdata: content(storage) for slot in before for storage in slot.storages}
        result = func(*args, **kwargs)
        changed = {item._cdata for slot in before for item in slot.storages if content(item) != old[item._cdata]}
        after = returns(func, result)
        self.note(func, [*hidden_writes(before, changed), *hidden_aliases(before, after)], (args, kwargs))
        self.false_views.update(str(func) for _ in false_views(before, after))
        return result

    def note(self, func: Any, whats: list, given: tuple[tuple, dict]) -> None:
        """Counts a call and what was found; keeps a few examples of each."""
        self.calls[str(func)] += 1
        for what in set(whats):
            finding = Finding(str(func), what)
            self.found[finding] += 1
            examples = self.examples.setdefault(finding, [])
            if len(examples) < 4:
                named = {name: describe(value) for name, value in given[1].items()}
                examples.append(f"{self.label}: {describe(given[0])[1:-1]} {named or ''}")


# The long search


def print_table(watch: Watch) -> None:
    """What was found, how often in how many calls, and examples to read the condition off."""
    print(f"{sum(watch.calls.values())} calls of {len(watch.calls)} overloads; {watch.failures} attempts failed")
    for finding, count in sorted(watch.found.items(), key=str):
        print(f"{finding.overload}: {finding.what} in {count} of {watch.calls[finding.overload]} calls")
        print(*(f"    {example[:240]}" for example in watch.examples[finding]), sep="\n")
    for overload, count in sorted(watch.false_views.items()):
        print(f"{overload}: said to be a view, but has memory of its own {count} times")


def main() -> None:
    from tests.conformance.schemas_calls import database, try_database
    from tests.conformance.schemas_modules import try_training

    torch.manual_seed(0)
    watch = Watch()
    try_training(watch)
    try_database(watch, database(), seconds=2.0)
    print_table(watch)


if __name__ == "__main__":
    main()
