"""Same is the same: static values compared by type and value, at any depth.

`==` is not enough where a trace is chosen: it takes 1, 1.0 and True for the same, and 0.0 and -0.0; it denies that NaN
is NaN; and of arrays and tensors it gives no truth at all. A `snapshot` is a flat tuple in which equal values have the
same entries, so that two snapshots are compared by `==` at the speed of C, without recursion.

| what | is compared by |
| --- | --- |
| numbers, strings, bytes | type and value; NaN is NaN, and 0.0 is not -0.0 |
| tuples, lists, dicts, deques | type and entries, in order; dicts by keys too |
| sets | type and elements |
| slices, ranges | start, stop and step |
| attrs and dataclass records | type and all fields, unless the class compares by identity |
| `functools.partial`, toolz's `curry` and `Compose`, bound methods | their parts |
| NumPy arrays and scalars | type, dtype, shape and bytes |
| tensors, functions, classes, modules, members of enums | identity |
| other objects | identity where `==` means that; type and `==` where they can be hashed; else their attributes |
"""

import array
import collections
import enum
import functools
import sys
import types
import weakref
from collections.abc import Hashable, Iterable
from typing import Any

import toolz
import torch
from torch import Tensor

from functrain.engine.statics.attributes import fields, is_frozen, is_record, state

PLAIN = frozenset(
    {int, str, bytes, bool, type(None), type(...), type(NotImplemented)}
    | {torch.dtype, torch.layout, torch.memory_format, torch.device}
)
"""Types whose `==` compares all that there is, once the types are the same."""


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()
"""Stands for an attribute that an object has room for and does not have."""

_BY_IDENTITY = (Tensor, type, enum.Enum, types.FunctionType, types.ModuleType)
_BASES = {
    str: str.__str__,
    bytes: lambda b: bytes.__getitem__(b, slice(None)),
    int: int.__int__,
    float: float.__float__,
    complex: complex.__pos__,
}
_PAIRS = (dict, types.MappingProxyType)


def identical(a: Any, b: Any) -> bool:
    """Return whether two values are of the same type and the same value, with all that they hold.

    An object is identical to itself. Whether a list or dict is still what it was, a `snapshot` tells.

    >>> identical((1, [0.0]), (1, [0.0])), identical((1,), (1.0,)), identical([0.0], [-0.0])
    (True, False, False)
    >>> identical({"k": float("nan")}, {"k": float("nan")})
    True
    """
    if a is b:
        return True
    kind = type(a)
    if kind is not type(b):
        return False
    return a == b if kind in PLAIN else snapshot(a) == snapshot(b)


def snapshot(value: Any) -> Hashable:
    """Return a frozen picture of a value: two are equal exactly when the values were identical when they were taken.

    What is compared by identity, tensors above all, is not kept alive. The time is linear in the size of the value, and
    what is held in many places is looked at once. Where a value holds itself, two are identical when the same places
    hold the same object.

    >>> log = [1, 2]
    >>> before = snapshot(log)
    >>> log.append(3)
    >>> snapshot(log) == before, snapshot([1, 2]) == before
    (False, True)
    """
    kind = type(value)
    return (kind, value) if kind in PLAIN else _Picture(value).entries


def is_settled(value: Any) -> bool:
    """Return whether a value can never become another: then the same object is the same value, without a look inside.

    >>> is_settled((1, "a", frozenset({2}))), is_settled((1, []))
    (True, False)
    """
    return type(value) in PLAIN or _Picture(value).settled


class Itself:
    """The entry of what is compared by identity. It holds the object weakly where it can be."""

    __slots__ = ("_id", "_strong", "_weak")

    def __init__(self, value: Any) -> None:
        self._id, self._weak, self._strong = id(value), None, None
        try:
            self._weak = weakref.ref(value)
        except TypeError:
            self._strong = value

    def alive(self) -> bool:
        """Return whether the object is there; another may have its id after it."""
        return self._weak is None or self._weak() is not None

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return type(other) is Itself and self._id == other._id and self.alive() and other.alive()

    def __hash__(self) -> int:
        return hash(self._id)


class _Equal:
    """The entry of an object with an `==` and a hash of its own, which may raise, or return what is no truth."""

    __slots__ = ("_hash", "_value")

    def __init__(self, value: Any) -> None:
        self._value, self._hash = value, hash(value)

    def __eq__(self, other: object) -> bool:
        if type(other) is not _Equal or type(other._value) is not type(self._value):
            return False
        if other._value is self._value:
            return True
        try:
            verdict = self._value == other._value
            return verdict is True or (type(verdict).__name__ in ("bool", "bool_") and bool(verdict))
        except Exception:
            return False

    def __hash__(self) -> int:
        return self._hash


class _Picture:
    """A value taken apart: a part that differs from all before it becomes one entry, which names its parts by number.

    Equal parts get one number however often and in however many copies they occur, so a copy has the same entries.

    Attributes:
        entries: the entries, in the order in which their parts were finished.
        settled: whether nothing in the value can change.
    """

    def __init__(self, value: Any) -> None:
        self.settled = True
        self._numbers: dict[Hashable, int] = {}
        self._numbered: dict[int, int] = {}  # id of an object -> the number of its entry
        self._open: dict[int, int] = {}  # id of an object that is being taken apart -> the how manieth that was
        self._alive: list[Any] = []  # what has been looked at, so that ids stay what they are
        self._take(value)
        self.entries = tuple(self._numbers)

    def _take(self, value: Any) -> None:
        # A stack of its own: a list may be nested deeper than Python recurses.
        stack: list[tuple[int, Any, list[Any], list[int]]] = []
        number = self._enter(value, stack)
        while stack:
            of, head, waiting, numbers = stack[-1]
            if number is not None:
                numbers.append(number)
            if waiting:
                number = self._enter(waiting.pop(), stack)
                continue
            stack.pop()
            del self._open[of]
            number = self._numbered[of] = self._number((head, *numbers))

    def _number(self, entry: Hashable) -> int:
        return self._numbers.setdefault(entry, len(self._numbers))

    def _enter(self, value: Any, stack: list) -> int | None:
        """Return the number of a value, or None when its parts must be numbered first: they are on the stack then."""
        kind = type(value)
        if kind in PLAIN:
            return self._number((kind, value))
        key = id(value)
        if key in self._numbered:
            return self._numbered[key]
        if key in self._open:
            return self._number(("inside", self._open[key]))
        head, parts, changeable = apart(value, kind)
        self.settled = self.settled and not changeable
        self._alive.append(value)
        if parts is None:
            number = self._numbered[key] = self._number(head)
            return number
        self._open[key] = len(self._alive)
        stack.append((key, head, [*parts][::-1], []))
        return None


Apart = tuple[Hashable, Iterable[Any] | None, bool]
"""What stands for the value itself, its parts (None if it is a leaf), and whether it can change."""


def apart(value: Any, kind: type) -> Apart:
    """Take one value apart, one layer deep.

    >>> apart([1, 2], list)
    ((<class 'list'>, 2), [1, 2], True)
    """
    if kind is float:
        return (kind, plain_float(value)), None, False
    if kind is tuple or kind is list:
        return (kind, len(value)), list(value), kind is list
    if isinstance(value, _BY_IDENTITY):
        return Itself(value), None, False
    for way in (_container, _callable_parts, _numpy, _builtin_kin, _record):
        check = way(value, kind)
        if check is not None:
            return check
    return _object(value, kind)


def plain_float(value: float) -> Hashable:
    """Return what stands for a float: itself, or a word where `==` would be wrong.

    >>> plain_float(-0.0), plain_float(1.5)
    ('-0.0', 1.5)
    """
    return value if value == value and value != 0.0 else repr(value)


def _container(value: Any, kind: type) -> Apart | None:
    if isinstance(value, _PAIRS):
        return _with_state(value, kind, [part for pair in list(_items(value)) for part in pair], True)
    if isinstance(value, (tuple, list)):
        parts = tuple.__iter__(value) if isinstance(value, tuple) else list.__iter__(value)
        return _with_state(value, kind, list(parts), isinstance(value, list))
    if isinstance(value, (set, frozenset)):
        elements = frozenset(snapshot(element) for element in list(value))
        return _with_state(value, (kind, elements), [], isinstance(value, set))
    if isinstance(value, collections.deque):
        return _with_state(value, (kind, value.maxlen), list(value), True)
    if kind is slice or kind is range:
        return kind, (value.start, value.stop, value.step), False
    if kind is complex:
        return (kind, plain_float(value.real), plain_float(value.imag)), None, False
    if isinstance(value, (bytearray, array.array)):
        return (kind, getattr(value, "typecode", ""), bytes(memoryview(value))), None, True
    return None


def _items(mapping: Any) -> Iterable[tuple[Any, Any]]:
    return plain_mapping(type(mapping)).items(mapping)


def plain_mapping(kind: type) -> Any:
    """Return the class of Python's own from which a class of mappings comes: past what the subclass makes of `items`.

    >>> plain_mapping(collections.Counter), plain_mapping(collections.OrderedDict)
    (<class 'dict'>, <class 'collections.OrderedDict'>)
    """
    return next(base for base in (collections.OrderedDict, dict, types.MappingProxyType) if issubclass(kind, base))


def _with_state(value: Any, head: Hashable, parts: list[Any], changeable: bool) -> Apart:
    if type(value) in (dict, set, frozenset, types.MappingProxyType):
        return (head, len(parts)), parts, changeable
    own = state(value)
    if isinstance(value, collections.defaultdict):
        own["default_factory"] = value.default_factory
    return (head, len(parts), *own), [*parts, *own.values()], changeable or bool(own)


def _callable_parts(value: Any, kind: type) -> Apart | None:
    if isinstance(value, functools.partial) or kind is toolz.curry:
        return kind, [value.func, value.args, value.keywords], bool(value.keywords)
    if kind is toolz.functoolz.Compose:
        return kind, [value.first, *value.funcs], True
    if kind is types.MethodType:
        return kind, [value.__func__, value.__self__], False
    return None


def _numpy(value: Any, kind: type) -> Apart | None:
    np = sys.modules.get("numpy")
    if np is None or not isinstance(value, (np.ndarray, np.generic)):
        return None
    changeable = isinstance(value, np.ndarray)
    head = (kind, str(value.dtype), value.shape)
    if value.dtype.hasobject:  # its bytes would be addresses
        return head, np.asarray(value).ravel().tolist(), changeable
    return (*head, value.tobytes()), None, changeable


def _builtin_kin(value: Any, kind: type) -> Apart | None:
    """Take a subclass of a number or a string apart: the value as its base sees it, and its attributes."""
    for base, plain in _BASES.items():
        if isinstance(value, base):
            own = state(value)
            return (kind, *own), [plain(value), *own.values()], bool(own)
    return None


def _record(value: Any, kind: type) -> Apart | None:
    if kind.__eq__ is object.__eq__ or not is_record(kind):
        return None
    own = state(value)
    return kind, [own.get(name, ABSENT) for name in fields(kind)], not is_frozen(kind)


def _object(value: Any, kind: type) -> Apart:
    if kind.__eq__ is object.__eq__:
        return Itself(value), None, False
    if kind.__hash__ is not None:
        try:
            return _Equal(value), None, False
        except Exception:
            return Itself(value), None, False
    own = state(value)
    return ((kind, *own), list(own.values()), True) if own else (Itself(value), None, True)
