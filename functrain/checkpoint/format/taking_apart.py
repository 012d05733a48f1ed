"""A value taken apart, into tensors by name and an outline of JSON data that says where each stands."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.checkpoint.format.elements import STORED
from functrain.checkpoint.format.outlines import MOST_BITS, MOST_DEEP
from functrain.dispatch_state import is_traced, level
from functrain.errors import DuplicateName, NotSavable

_RESERVED = "__metadata__"
"""What no tensor in a safetensors file may be called."""

SCALARS = frozenset((bool, int, float, complex, str, type(None)))
"""The types of numbers, strings and None; a subclass, such as an enum's member, is none of them."""


@attrs.frozen
class Parts:
    """A value taken apart.

    Attributes:
        outline: where everything stands, JSON data.
        tensors: the tensors by name, each once.
    """

    outline: Any
    tensors: Mapping[str, Tensor]


@attrs.frozen
class _Taken:
    """What has been met so far: the tensors by name, the name by memory, and the dotted paths of all leaves."""

    traced: bool
    tensors: dict[str, Tensor] = attrs.field(factory=dict)
    by_memory: dict[tuple, str] = attrs.field(factory=dict)
    paths: set[str] = attrs.field(factory=set)


def take_apart(value: Any) -> Parts:
    """Return the outline of a value and its tensors by dotted path.

    Raises:
        NotSavable: something in it is neither a tensor that has memory, a number, a string, None nor a container.
        DuplicateName: two leaves have one dotted path.

    >>> take_apart({"w": torch.ones(2), "n": 3}).outline
    {'dict': [['w', {'tensor': 'w'}], ['n', 3]]}
    """
    taken = _Taken(is_traced())
    return Parts(_outline(value, "", 0, taken), taken.tensors)


def children(value: Any) -> tuple[str, list[tuple[Any, Any]]] | None:
    """Return the kind of a container and its (name, child) pairs, None for a leaf.

    A field of a record that belongs to its structure is among them if it is data; another stays with the class.

    >>> children((1, 2))
    ('tuple', [(0, 1), (1, 2)])
    """
    kind, fields = _container(type(value))
    if kind == "dict":
        return kind, list(value.items())
    if kind in ("list", "tuple"):
        return kind, list(enumerate(value))
    return None if kind is None else (kind, _pairs(value, fields))


def _pairs(value: Any, fields: tuple[tuple[str, bool], ...]) -> list[tuple[str, Any]]:
    pairs = []
    for name, static in fields:
        child = getattr(value, name)
        if not static or is_data(child):
            pairs.append((name, child))
    return pairs


@functools.cache  # of classes, because asking whether one is a mapping takes longer than all the rest
def _container(cls: type) -> tuple[str | None, tuple[tuple[str, bool], ...]]:
    """Return the kind of a container, None for a leaf, and a record's fields: whether each belongs to its structure."""
    if cls in SCALARS:
        return None, ()
    if issubclass(cls, Mapping):
        return "dict", ()
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return "record", tuple((name, False) for name in cls._fields)  # pyright: ignore
    if issubclass(cls, (list, tuple)):
        return "list" if issubclass(cls, list) else "tuple", ()
    if not attrs.has(cls):
        return None, ()
    return "record", tuple((f.name, bool(f.metadata.get("static"))) for f in attrs.fields(cls) if f.init)


def is_data(value: Any) -> bool:
    """Return whether a value is made of numbers, strings, None and plain containers of them.

    >>> is_data(("train", 3)), is_data(print)
    (True, False)
    """
    if isinstance(value, Mapping):
        return all(is_data(v) for v in value.values())
    return all(is_data(v) for v in value) if isinstance(value, (list, tuple)) else is_scalar(value)


def is_scalar(value: Any) -> bool:
    """Return whether a value is a number, a string or None; a subclass, such as an enum's member, is none of them.

    >>> is_scalar(0.5), is_scalar([0.5])
    (True, False)
    """
    return type(value) in SCALARS


def scalar_outline(value: Any) -> Any:
    """Return what stands in an outline for a number, a string or None.

    >>> scalar_outline(0.5), scalar_outline(float("nan"))
    (0.5, {'float': 'nan'})
    """
    if type(value) is complex:
        return {"complex": [scalar_outline(value.real), scalar_outline(value.imag)]}
    return {"float": str(value)} if type(value) is float and not math.isfinite(value) else value


def _outline(value: Any, name: str, deep: int, taken: _Taken) -> Any:
    """Return the outline of what stands at a dotted path, so many levels deep. A run has hundreds: this is quick."""
    if deep > MOST_DEEP:
        start = ".".join(name.split(".")[:3])
        raise NotSavable(f"{start}...: nothing deeper than {MOST_DEEP} levels can be saved; does it hold itself?")
    if isinstance(value, Tensor):
        return {"tensor": _tensor_name(value, name, taken)}
    kind, fields = _container(type(value))
    if kind is None:
        return _leaf(value, name, taken)
    start, deep = f"{name}." if deep else "", deep + 1
    if kind == "list" or kind == "tuple":
        return {kind: [_outline(child, f"{start}{i}", deep, taken) for i, child in enumerate(value)]}
    pairs = [(_key(key, name), child) for key, child in value.items()] if kind == "dict" else _pairs(value, fields)
    return {kind: [[key, _outline(child, f"{start}{key}", deep, taken)] for key, child in pairs]}


def _key(key: Any, name: str) -> Any:
    if type(key) in (str, int) and _is_text(key):
        return key
    raise NotSavable(f"{_at(name)}: keys of dicts must be strings or whole numbers, got {key!r}")


def _is_text(value: Any) -> bool:
    # Half of a surrogate pair is a Python string and no text: a file with such a name is read by nobody else.
    return type(value) is not str or value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)


def _leaf(value: Any, name: str, taken: _Taken) -> Any:
    cls = type(value)
    if cls not in SCALARS:
        raise NotSavable(
            f"{_at(name)}: tensors, numbers, strings, None, dicts, lists, tuples and frozen attrs classes can be "
            f"saved, got {_describe(value)}{_remedy(value)}"
        )
    if cls is int and value.bit_length() > MOST_BITS:
        raise NotSavable(f"{_at(name)}: whole numbers of up to {MOST_BITS} bits can be saved, got {value.bit_length()}")
    _claim(name, taken)
    return scalar_outline(value) if cls is float or cls is complex else value


def _describe(value: Any) -> str:
    return f"a {type(value).__module__}.{type(value).__qualname__}".replace("a builtins.", "a ")


def _remedy(value: Any) -> str:
    if hasattr(value, "__array__"):
        return "; convert it with torch.as_tensor, or with .item() if it is one number"
    if dataclasses.is_dataclass(value):
        return "; make its class a record with tree.node or attrs.frozen"
    return "; leave it out, or save what it is made from"


def _claim(name: str, taken: _Taken) -> None:
    if name in taken.paths:
        raise DuplicateName(f"two leaves have the dotted path {name!r}; rename a key, so that each has its own")
    taken.paths.add(name)


def _at(name: str) -> str:
    return name or "the value"


def _tensor_name(tensor: Tensor, name: str, taken: _Taken) -> str:
    _check_tensor(tensor, name, taken)
    _claim(name, taken)
    memory = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
    memory = (*memory, tensor.is_conj(), tensor.is_neg())
    if memory in taken.by_memory and tensor.numel():
        return taken.by_memory[memory]
    while name == _RESERVED or name in taken.tensors:
        name += "'"
    taken.tensors[name] = tensor.detach() if tensor.requires_grad else tensor
    taken.by_memory[memory] = name
    return name


def _check_tensor(tensor: Tensor, name: str, taken: _Taken) -> None:
    layout = tensor.layout  # first, because one that was donated says so here
    reason = None
    if taken.traced or level(tensor) >= 0:
        reason = "it belongs to a trace or a transformation; save after the call"
    elif type(tensor) not in (Tensor, torch.nn.Parameter, torch.nn.Buffer):
        reason = f"it is a {type(tensor).__name__}; convert it to a plain tensor"
    elif layout != torch.strided:
        reason = f"its layout is {layout}; use .to_dense()"
    elif tensor.is_meta:
        reason = "it is on the device meta and has no values"
    elif tensor.dtype not in STORED:
        reason = f"its dtype is {tensor.dtype}; convert it to another"
    if reason is not None:
        raise NotSavable(f"{_at(name)}: this tensor cannot be saved: {reason}")
