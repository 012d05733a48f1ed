"""The walk through what a function closes over: one record for each thing met, and the places at which to look again.

A record says what a thing is, in entries that are equal when the values are identical (`static_values`). A thing that
can change (a dict, a cell, a user's object) also has its places in the `Look`. What cannot change is looked through.
"""

import array
import collections
import contextvars
import enum
import functools
import sys
import threading
import types
from collections.abc import Hashable, Sequence
from typing import Any

import attrs
import toolz
from torch import Tensor

from functrain.engine.statics.attributes import fields, is_frozen, is_record, own_dict, slots, state
from functrain.engine.statics.library import is_library_class, is_library_file, is_library_module, is_opaque, names_in
from functrain.engine.statics.looking import Look
from functrain.engine.statics.static_values import ABSENT, PLAIN, Itself, plain_float, plain_mapping, snapshot

LISTS = (list, tuple, collections.deque)
SETTINGS = frozenset({bool, int, float, str, type(None)})
"""Types of what somebody may set in a library's module, a flag for one; its functions and classes nobody rebinds."""
_WRAPPED = (staticmethod, classmethod, types.MethodType, property, functools.cached_property)
_LEAVES = (str, bytes, int, float, complex, enum.Enum, type, types.ModuleType)
_PARTS = ("__func__", "__self__", "__wrapped__", "fget", "func")


@attrs.frozen(eq=False)
class Thing:
    """One thing, one layer deep.

    Attributes:
        head: what stands for the thing itself.
        keys: the name of each part; of a list, its positions.
        values: the parts.
        named: whether parts are written `.name`, else `[key]`.
    """

    head: Hashable
    keys: Sequence[Any]
    values: list[Any]
    named: bool = True


@attrs.frozen
class Record:
    """What a walk writes down of a thing.

    Attributes:
        head: what stands for the thing itself.
        keys: what stands for the name of each part.
        parts: what stands for each part; of one that has a record of its own its type alone.
        named: whether parts are written `.name`, else `[key]`.
    """

    head: Hashable
    keys: Hashable
    parts: tuple[Hashable, ...]
    named: bool = attrs.field(eq=False)


class Walk:
    """A walk from a function through its surroundings, breadth first; each thing is met once.

    Attributes:
        records: path -> record.
        look: the places at which to look again.
    """

    def __init__(self, f: Any, ignored: frozenset[str] = frozenset()) -> None:
        self.records: dict[str, Record] = {}
        self.look = Look()
        self._ignored = ignored
        self._met: dict[int, str] = {id(f): ""}
        self._waiting: collections.deque[tuple[Any, str]] = collections.deque([(f, "")])
        self._alive: list[Any] = []
        while self._waiting:
            self._write_down(*self._waiting.popleft())
        self._alive.clear()
        self._met.clear()

    def _write_down(self, value: Any, path: str) -> None:
        self._alive.append(value)
        thing = self._thing(value, path)
        if thing is None:
            self.records[path] = Record(snapshot(value), (), (), True)
            return
        names = thing.keys if isinstance(thing.keys, range) else [*map(_entry, thing.keys)]
        parts = [
            self._part(part, thing, k, path) if type(part) not in PLAIN else (type(part), part)
            for k, part in enumerate(thing.values)
        ]
        keys = names if isinstance(names, range) else tuple(names)
        self.records[path] = Record(thing.head, keys, tuple(parts), thing.named)

    def _part(self, value: Any, thing: Thing, k: int, path: str) -> Hashable:
        kind = type(value)
        if isinstance(value, Tensor):
            return Itself(value)
        if kind is float:
            return kind, plain_float(value)
        if value is ABSENT:
            return value
        if id(value) not in self._met:
            where = self._free(join(path, thing.keys[k], thing.named, k))
            self._met[id(value)] = where
            self._waiting.append((value, where))
            return kind
        return kind, self._met[id(value)]

    def _free(self, path: str) -> str:
        while path in self.records:
            path += "'"
        return path

    def _thing(self, value: Any, path: str) -> Thing | None:
        if f"{path}[]" in self._ignored:
            return Thing(type(value), (), [])
        kind = type(value)
        for way in (self._function, self._container, self._wrapper, self._class, self._record, self._object):
            thing = way(value, kind, path)
            if thing is not None:
                return thing
        return None

    def _keep(self, path: str, key: str) -> bool:
        return not self._ignored or join(path, key, True, 0) not in self._ignored

    # Functions

    def _function(self, f: Any, kind: type, path: str) -> Thing | None:
        if kind is not types.FunctionType:
            return None
        own = not is_library_file(f.__code__.co_filename)
        reached = self._cells(f, own, path)
        reached["__defaults__"], reached["__kwdefaults__"] = f.__defaults__, f.__kwdefaults__
        if vars(f):
            reached["__dict__"] = vars(f)
        if own:
            for name in ("__code__", "__defaults__", "__kwdefaults__"):
                self.look.attribute(f, name, getattr(f, name))
            reached |= self._variables(f, path)
            reached |= self._attributes(f, reached, path)
        return Thing((f.__code__, f.__globals__.get("__name__")), [*reached], [*reached.values()])

    def _cells(self, f: Any, own: bool, path: str) -> dict[str, Any]:
        reached = {}
        for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
            if not self._keep(path, name):
                continue
            reached[name] = value = content(cell)
            if own and value is ABSENT:
                self.look.call(content, cell, gives=ABSENT)
            elif own:
                self.look.attribute(cell, "cell_contents", value)
        return reached

    def _variables(self, f: Any, path: str) -> dict[str, Any]:
        names, scope, reached = names_in(f.__code__), f.__globals__, {}
        for name in names.variables:
            if self._keep(path, name):
                reached[name] = value = scope.get(name, ABSENT)
                self.look.some(scope, name, value)
        if reached.get("globals", True) is ABSENT:  # Python's own: it may be asked for what the code has as a string
            for name in names.attributes:
                if name in scope and name not in reached and self._keep(path, name):
                    reached[name] = value = scope[name]
                    self.look.some(scope, name, value)
        return reached

    def _attributes(self, f: Any, held: dict[str, Any], path: str) -> dict[str, Any]:
        """Return what a function may read from modules, by dotted name: of a library's, plain values alone."""
        names = names_in(f.__code__).attributes
        modules = {name: value for name, value in held.items() if isinstance(value, types.ModuleType)}
        for name in names:  # imported by the function itself
            if name in sys.modules and name not in held:
                modules[name] = sys.modules[name]
        reached, waiting, met = {}, [*modules.items()], set()
        while waiting:
            place, module = waiting.pop()
            if id(module) in met:
                continue
            met.add(id(module))
            library = is_library_module(module.__name__)
            for name in names:
                value = vars(module).get(name, ABSENT)
                seen = type(value) in SETTINGS if library else True
                if seen and self._keep(path, f"{place}.{name}"):
                    reached[f"{place}.{name}"] = value
                    self.look.some(vars(module), name, value)
                if isinstance(value, types.ModuleType):
                    waiting.append((f"{place}.{name}", value))
        return reached

    # Containers

    def _container(self, value: Any, kind: type, path: str) -> Thing | None:
        if isinstance(value, (dict, types.MappingProxyType)):
            plain = plain_mapping(kind)
            keys, values = [*plain.keys(value)], [*plain.values(value)]
            self.look.mapping(value, keys, values)
            return self._with_state(value, Thing((kind, "entries"), keys, values, named=False))
        if isinstance(value, LISTS):
            values = list(value)
            if not isinstance(value, tuple):
                self.look.entries(value, values)
            return self._with_state(value, Thing((kind, "entries"), range(len(values)), values, named=False))
        if isinstance(value, (set, frozenset)):
            values = list(value)
            if isinstance(value, set):
                self.look.entries(value, values)
            inner = [element for element in values if callable(element)]
            return Thing(snapshot(value), range(len(inner)), inner, named=False)
        return self._bytes(value)

    def _with_state(self, value: Any, thing: Thing) -> Thing:
        if type(value) in (dict, list, tuple, types.MappingProxyType):
            return thing
        own = state(value)
        if isinstance(value, collections.defaultdict):
            own["default_factory"] = value.default_factory
            self.look.attribute(value, "default_factory", value.default_factory)
        named = own_dict(value)
        if named or (named is not None and not is_library_class(type(value))):
            self.look.mapping(named, [*named], [*named.values()])
        keys = [*thing.keys, *own] if own else thing.keys
        return Thing(thing.head, keys, [*thing.values, *own.values()], named=False)

    def _bytes(self, value: Any) -> Thing | None:
        np = sys.modules.get("numpy")
        if isinstance(value, (bytearray, array.array)) or (np and isinstance(value, np.ndarray)):
            picture = snapshot(value)
            self.look.call(_pictures_as, value, picture, gives=True)
            return Thing(picture, (), [])
        return None

    # What wraps others

    def _wrapper(self, value: Any, kind: type, path: str) -> Thing | None:
        if isinstance(value, functools.partial) or kind is toolz.curry:
            return Thing(kind, ["func", "args", "keywords"], [value.func, value.args, value.keywords])
        if kind is toolz.functoolz.Compose:
            return Thing(kind, ["first", "funcs"], [value.first, value.funcs])
        if isinstance(value, _WRAPPED):
            parts = [name for name in _PARTS if name in dir(kind)]
            return Thing(kind, [name.strip("_") for name in parts], [getattr(value, name) for name in parts])
        if kind is types.BuiltinFunctionType and not isinstance(value.__self__, (types.ModuleType, type(None))):
            return Thing((kind, value.__name__), ["__self__"], [value.__self__])
        if is_library_class(kind) and (names := getattr(kind, "memo_of", None)):
            return Thing(kind, names, [getattr(value, name) for name in names])
        if kind is functools._lru_cache_wrapper:
            return Thing(kind, ["__wrapped__"], [value.__wrapped__])
        if kind is contextvars.ContextVar:
            held = _held_here(value)
            self.look.call(_held_here, value, gives=held)
            return Thing((kind, value.name), ["value"], [held])
        return None

    def _class(self, value: Any, kind: type, path: str) -> Thing | None:
        if not isinstance(value, type) or is_library_class(value):
            return None
        own = dict(vars(value))
        self._look_at(vars(value), own, path)
        bases = {f"__mro__[{k}]": base for k, base in enumerate(value.__mro__) if k}
        reached = {name: part for name, part in own.items() if self._keep(path, name)} | bases
        return Thing(Itself(value), [*reached], [*reached.values()])

    # Objects

    def _record(self, value: Any, kind: type, path: str) -> Thing | None:
        if not is_record(kind) or not is_frozen(kind):
            return None
        own, names = state(value), fields(kind)
        reached = {name: own.get(name, ABSENT) for name in names} | self._of_class(kind)
        head = (kind, "record") if kind.__eq__ is not object.__eq__ or is_library_class(kind) else Itself(value)
        return Thing(head, [*reached], [*reached.values()])

    def _of_class(self, kind: type) -> dict[str, Any]:
        return {} if is_library_class(kind) else {"__class__": kind}

    def _object(self, value: Any, kind: type, path: str) -> Thing | None:
        if isinstance(value, _LEAVES) or is_opaque(kind):
            return None
        reached = state(value)
        if not reached and is_library_class(kind) and kind is not threading.local:
            return None
        self._look_at_state(value, kind, path)
        reached = {name: part for name, part in reached.items() if self._keep(path, name)} | self._of_class(kind)
        return Thing(Itself(value), [*reached], [*reached.values()])

    def _look_at_state(self, value: Any, kind: type, path: str) -> None:
        own = own_dict(value)
        if isinstance(value, threading.local):  # another thread's is another dict
            self.look.call(own_dict, value, gives=own)
        if own is not None:
            self._look_at(own, dict(own), path)
        for name, slot in slots(kind):
            if self._keep(path, name):
                self.look.call(_slot, slot, value, gives=_slot(slot, value))

    def _look_at(self, mapping: Any, copy: dict[str, Any], path: str) -> None:
        kept = [name for name in copy if self._keep(path, name)]
        if len(kept) == len(copy):
            self.look.mapping(mapping, kept, [*copy.values()])
        for name in kept if len(kept) < len(copy) else ():
            self.look.some(mapping, name, copy[name])


def join(path: str, key: Any, named: bool, k: int) -> str:
    """Return the path of a part.

    >>> join("config", "lr", False, 0), join("", "k", True, 0), join("net", "scale", True, 1)
    ("config['lr']", 'k', 'net.scale')
    """
    if named:
        return f"{path}.{key}" if path else str(key)
    return f"{path}[{key!r}]" if type(key) in (int, str, bool, float) else f"{path}[<key {k}>]"


def content(cell: Any) -> Any:
    """Return what a cell holds, ABSENT before it is assigned.

    >>> content(types.CellType(1)), content(types.CellType())
    (1, absent)
    """
    try:
        return cell.cell_contents
    except ValueError:
        return ABSENT


def _held_here(variable: contextvars.ContextVar) -> Any:
    return variable.get(ABSENT)


def _slot(slot: Any, value: Any) -> Any:
    try:
        return slot.__get__(value)
    except AttributeError:
        return ABSENT


def _entry(key: Any) -> Hashable:
    return key if type(key) is str else snapshot(key)


def _pictures_as(value: Any, picture: Hashable) -> bool:
    return snapshot(value) == picture
