"""What was saved, as data, and how it is put into a structure."""

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.checkpoint.format.header import Header
from functrain.checkpoint.format.outlines import CONTAINERS, index, join, node_of, pairs_of, plain, scalar_of
from functrain.checkpoint.structures import (
    Anything,
    Each,
    Optional,
    Static,
    describe_leaf,
    difference,
    field_names,
    rebuild,
    record_of,
)
from functrain.errors import InvalidArgument, TreeMismatch

MOST_LINES = 10


@attrs.frozen(eq=False, repr=False)
class Saved:
    """What was saved: data, in no structure but its own.

    Attributes:
        path: the file.
        leaves: the tensors, numbers, strings and None by dotted path, in order. Tensors are on the CPU, with memory of
            their own; two leaves that were one tensor are one.
        info: what was written beside the value, numbers and strings by name.
        versions: the versions of the libraries that saved it, by name.
        time: when it was saved, UTC, as in 2026-01-31T12:00:00Z.
        number: its number among the checkpoints of a folder, or None.
        size: the bytes of its tensors.
        outline: where the leaves stand, see `checkpoint.format.outlines`.
        tensors: the tensors by the name that they have in the file.
        devices: where each of these was when it was saved, such as "cuda:0", by the same names.
    """

    path: str
    leaves: Mapping[str, Any]
    info: Mapping[str, Any]
    versions: Mapping[str, str]
    time: str
    number: int | None
    size: int
    outline: Any
    tensors: Mapping[str, Tensor]
    devices: Mapping[str, str] = attrs.field(factory=dict)

    def __repr__(self) -> str:
        facts = [f"{len(self.leaves)} leaves", f"{len(self.tensors)} tensors of {_bytes(self.size)}"]
        facts += [f"{name}={value!r}" for name, value in self.info.items()]
        return f"Saved({self.path}: {', '.join(facts)})"

    def __bool__(self) -> bool:
        return True  # `latest(folder) or state` means the state where there is no checkpoint, never where it is small


def _bytes(size: float) -> str:
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def as_saved(path: str, header: Header, tensors: Mapping[str, Tensor]) -> Saved:
    """Return the header and the tensors of a file as a `Saved`.

    >>> as_saved("a", Header({}, {"list": [1, 2]}, {"step": 3}, {}, ""), {})
    Saved(a: 2 leaves, 0 tensors of 0 B, step=3)
    """
    leaves = _leaves(header.outline, tensors)
    info = {name: scalar_of(*node_of(value)) for name, value in header.info.items()}
    size = sum(entry.nbytes for entry in header.entries.values())
    devices = {name: entry.device for name, entry in header.entries.items()}
    facts = (info, header.versions, header.time, header.number, size, header.outline)
    return Saved(path, leaves, *facts, tensors, devices)


def _leaves(outline: Any, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        place: tensors[content] if kind == "tensor" else scalar_of(kind, content)
        for place, (kind, content) in ((place, node_of(node)) for place, node in index(outline).items())
        if kind in ("tensor", "scalar", "float", "complex")
    }


def fields_of(saved: Saved) -> tuple[str, ...]:
    """Return the names of the fields of a record that was saved, or the keys of a dict; none for another value.

    >>> fields_of(as_saved("a", Header({}, {"dict": [["n", 3]]}, {}, {}, ""), {}))
    ('n',)
    """
    kind, content = node_of(saved.outline)
    return tuple(str(name) for name, _ in pairs_of(kind, content)) if kind in ("dict", "record") else ()


def part(saved: Saved, name: str) -> Saved:
    """Return what stands in one field of what was saved, or under one key, as a `Saved` of its own.

    So the state alone can be had from a run: `into(part(saved, "state"), state)`.

    Raises:
        TreeMismatch: there is no such field.

    >>> part(as_saved("a", Header({}, {"dict": [["n", {"list": [1, 2]}]]}, {}, {}, ""), {}), "n").leaves
    {'0': 1, '1': 2}
    """
    check_saved(saved, "saved")
    if name not in fields_of(saved):
        raise TreeMismatch(f"{saved.path} has no {name!r} at its top; it has {', '.join(fields_of(saved)) or 'none'}")
    _, content = node_of(saved.outline)
    inside = next(child for key, child in content if str(key) == name)
    return attrs.evolve(saved, path=f"{saved.path}: {name}", leaves=_leaves(inside, saved.tensors), outline=inside)


def as_plain(saved: Saved) -> Any:
    """Return what was saved in dicts, lists and tuples; a record is a dict of its fields.

    >>> as_plain(as_saved("a", Header({}, {"tuple": [1, {"dict": []}]}, {}, {}, ""), {}))
    (1, {})
    """
    return plain(saved.outline, saved.tensors)


def into(saved: Saved, like: Any, what: str = "`like`") -> Any:
    """Return what was saved in the structure of `like`: every leaf of it, no more, and of the same kind.

    Args:
        saved: what `restore` returned.
        like: a value of the structure, such as a state that `init` made. Its leaves say which dtype, shape and device
            are expected; a tensor on the device "meta" is one that has no memory, and stands for one on the CPU.
            `Anything()`, `Optional(like)` and `Each(like)` stand where it cannot say.
        what: what `like` is called in errors.

    Raises:
        TreeMismatch: paths, shapes, dtypes or types differ; the message lists them, at most ten.
        InvalidArgument: something in `like` is neither a container, nor a tensor, nor data.

    >>> saved = as_saved("a", Header({}, {"list": [1, 2]}, {}, {}, ""), {})
    >>> into(saved, {"0": 0, "1": 0})
    {'0': 1, '1': 2}
    """
    filling = _Filling(saved, index(saved.outline))
    value = rebuild(like, filling.leaf)
    surplus = [path for path in saved.leaves if path not in filling.used]
    lines = filling.lines + [f"{path}: expected nothing, saved {describe_leaf(saved.leaves[path])}" for path in surplus]
    if lines:
        shown = (
            lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], f"and {len(lines) - MOST_LINES + 1} more"]
        )
        raise TreeMismatch("\n  ".join([f"{saved.path} has another structure than {what}:", *shown]))
    return value


@attrs.frozen
class _Filling:
    """Puts leaves into a structure, and notes which were used and what does not fit."""

    saved: Saved
    places: Mapping[str, Any]
    used: set[str] = attrs.field(factory=set)
    lines: list[str] = attrs.field(factory=list)
    moved: dict[tuple, Tensor] = attrs.field(factory=dict)

    def leaf(self, path: str, like: Any) -> Any:
        """Return what was saved at a path."""
        if path not in self.places:
            return self._wrong(path, f"expected {_wanted_kind(like)}, saved nothing")
        if isinstance(like, Static):
            return self._static(path, like)
        if isinstance(like, Anything):
            return self._anything(path, like)
        if isinstance(like, Optional):
            return self._optional(path, like)
        if isinstance(like, Each):
            return self._each(path, like)
        return self._plain_leaf(path, like)

    def _plain_leaf(self, path: str, like: Any) -> Any:
        if path not in self.saved.leaves:
            kind, _ = node_of(self.places[path])
            return self._wrong(path, f"expected {describe_leaf(like)}, saved a {kind}")
        self.used.add(path)
        value = self.saved.leaves[path]
        line = difference(like, value)
        if line is not None:
            return self._wrong(path, line)
        return self._move(value, like.device) if isinstance(value, Tensor) else value

    def _move(self, tensor: Tensor, device: torch.device) -> Tensor:
        if "meta" in (device.type, tensor.device.type):  # one of them has no memory: only its shape is looked at
            return tensor
        # Once for each device, so that what was one tensor is one again.
        return self.moved.setdefault((id(tensor), device), tensor.to(device))

    def _static(self, path: str, like: Static) -> Any:
        self._use_all(path)
        value = plain(self.places[path], self.saved.tensors)
        same = type(value) is type(like.value) and repr(value) == repr(like.value)
        return like.value if same else self._wrong(path, f"expected {like.value!r}, saved {value!r}")

    def _anything(self, path: str, like: Anything) -> Any:
        self._use_all(path)
        try:
            return self._some(self.places[path], _steps(path), like)
        except TreeMismatch as error:
            return self._wrong(path, str(error))

    def _some(self, outline: Any, path: tuple, like: Anything) -> Any:
        """Return what an outline says, each record in the structure of the first of `likes` that it fits."""
        kind, content = node_of(outline)
        if kind not in CONTAINERS:
            return plain(outline, self.saved.tensors)
        for candidate in like.likes if kind == "record" else ():
            trial = _Filling(self.saved, self.places)
            if field_names(type(candidate)) >= {name for name, _ in content} and trial.fits(path, candidate):
                return rebuild(candidate, trial.leaf, path)
        built = [(name, self._some(child, (*path, name), like)) for name, child in pairs_of(kind, content)]
        if kind in ("dict", "record"):
            return dict(built) if kind == "dict" else record_of(dict(built), like.records)
        return (list if kind == "list" else tuple)(child for _, child in built)

    def fits(self, path: tuple, like: Any) -> bool:
        """Return whether all that was saved at a path fits a value, which it fills in vain."""
        rebuild(like, self.leaf, path)
        start = f"{join(path)}." if path else ""
        return not self.lines and all(leaf in self.used for leaf in self.saved.leaves if leaf.startswith(start))

    def _optional(self, path: str, like: Optional) -> Any:
        if self.places[path] is not None:
            return rebuild(like.value, self.leaf, _steps(path))
        self.used.add(path)
        return None

    def _each(self, path: str, like: Each) -> Any:
        kind, content = node_of(self.places[path])
        if kind not in ("list", "tuple", "dict"):
            self._use_all(path)
            return self._wrong(path, f"expected a list, a tuple or a dict, saved a {kind}")
        built = {name: rebuild(like.value, self.leaf, (*_steps(path), name)) for name, _ in pairs_of(kind, content)}
        return built if kind == "dict" else (list if kind == "list" else tuple)(built.values())

    def _use_all(self, path: str) -> None:
        start = f"{path}." if path else ""
        self.used.update(each for each in self.saved.leaves if each == path or each.startswith(start))

    def _wrong(self, path: str, line: str) -> None:
        self.lines.append(f"{path or 'the value'}: {line}")


def _steps(path: str) -> tuple[str, ...]:
    return (path,) if path else ()


def _wanted_kind(like: Any) -> str:
    if isinstance(like, (Anything, Optional, Each)):
        return repr(type(like).__name__)
    return repr(like.value) if isinstance(like, Static) else describe_leaf(like)


def check_saved(value: Any, name: str) -> Saved:
    """Raise `InvalidArgument` unless a value is a `Saved`.

    >>> check_saved("a.safetensors", "saved")
    Traceback (most recent call last):
        ...
    functrain.errors.InvalidArgument: saved must be what checkpoint.restore(path) returns, got a str
    """
    if not isinstance(value, Saved):
        raise InvalidArgument(f"{name} must be what checkpoint.restore(path) returns, got a {type(value).__name__}")
    return value
