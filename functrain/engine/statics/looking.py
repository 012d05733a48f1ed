"""The quick look at whether places in memory still hold the same objects, as one generated expression.

It gathers the objects of all places into one list and compares their ids with those of before, all of it at the speed
of C: some 50 nanoseconds a place.
"""

import weakref
from collections.abc import Callable
from operator import is_, itemgetter
from types import MappingProxyType
from typing import Any

import attrs
from torch import Tensor

from functrain.engine.statics.static_values import ABSENT, plain_mapping


@attrs.frozen(eq=False)
class View:
    """The places as they were.

    Attributes:
        unchanged: () -> whether each place holds the same object; it raises where a place is gone.
        held: what is kept alive, so that its id stays its own: all but tensors, which are held weakly.
    """

    unchanged: Callable[[], bool]
    held: tuple[Any, ...]


LONG = 64
"""How many entries are rather compared by `is`, which is twice as quick and cannot be done without holding them."""

NEVER = View(lambda: False, ())
"""The view that nothing fits."""


class Look:
    """The places to look at, gathered by a walk; each with the objects that the walk met there.

    >>> cell, box = {"k": 1}, [2]
    >>> look = Look()
    >>> look.mapping(cell, [*cell], [*cell.values()])
    >>> look.entries(box, [*box])
    >>> view = look.view()
    >>> view.unchanged(), box.append(3), view.unchanged()
    (True, None, False)
    """

    def __init__(self) -> None:
        self._terms: list[str] = []
        self._objects: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._names: dict[int, tuple[Any, dict[str, Any]]] = {}
        self._empty: list[Any] = []
        self._long = 0

    def _constant(self, value: Any) -> str:
        name = f"c{len(self._constants)}"
        self._constants[name] = value
        return name

    def _add(self, term: str, *objects: Any) -> None:
        self._terms.append(term)
        self._objects += objects

    def attribute(self, owner: Any, name: str, value: Any) -> None:
        """Look at an attribute of an object of Python's own: a cell, a function."""
        self._add(f"{self._constant(owner)}.{name}", value)

    def call(self, f: Callable[..., Any], *args: Any, gives: Any) -> None:
        """Look at what a function returns: always the same object, such as True."""
        self._add(f"{self._constant(f)}({', '.join(map(self._constant, args))})", gives)

    def entries(self, container: Any, values: list[Any]) -> None:
        """Look at all that a container yields."""
        if not values:
            self._empty.append(container)
            return
        if len(values) > LONG and not any(isinstance(value, Tensor) for value in values):
            name, constant = self._constant(container), self._constant(tuple(values))
            self._long += len(values)
            self._add(f"len({name}) == {len(values)} and all(map(is_, {name}, {constant}))", True)
            return
        # The container ends with an object that nobody else has: an entry cannot move from one to the next unseen.
        self._add(f"*{self._constant(container)}, ABSENT", *values, ABSENT)

    def mapping(self, mapping: Any, keys: list[Any], values: list[Any]) -> None:
        """Look at the keys and the values of a mapping."""
        if not keys:
            self._empty.append(mapping)
            return
        name, kind = self._constant(mapping), type(mapping)
        names, entries = name, f"{name}.values()"
        if kind is not dict and kind is not MappingProxyType:
            plain = self._constant(plain_mapping(kind))
            names, entries = f"{plain}.keys({name})", f"{plain}.values({name})"
        if all(type(key) is str for key in keys):
            # Quicker than by id. A key that is equal and of a subclass of str passes for the same.
            self._add(f"[*{names}] == {self._constant(keys)}, *{entries}", True, *values)
        else:
            self._add(f"*{names}, ABSENT, *{entries}", *keys, ABSENT, *values)

    def some(self, mapping: Any, key: str, value: Any) -> None:
        """Look at one key of a mapping, or at its absence when the value is ABSENT."""
        # The first value counts: should another thread set another meanwhile, the look fails and the walk is repeated.
        self._names.setdefault(id(mapping), (mapping, {}))[1].setdefault(key, value)

    @property
    def size(self) -> int:
        """How many objects are looked at."""
        return len(self._objects) + self._long + sum(len(values) for _, values in self._names.values())

    def view(self) -> View:
        """Return the look at all the places."""
        for mapping, values in self._names.values():
            self._some(mapping, values)
        if self._empty:
            self._add(f"any({self._constant(tuple(self._empty))})", False)
        return _compile(self._terms, self._objects, self._constants)

    def _some(self, mapping: Any, values: dict[str, Any]) -> None:
        absent = frozenset(key for key, value in values.items() if value is ABSENT)
        present = [key for key in values if key not in absent]
        if absent:
            self.call(mapping.keys().isdisjoint, absent, gives=True)
        if len(present) == 1:
            self._add(f"{self._constant(mapping)}[{present[0]!r}]", values[present[0]])
        elif present:
            getter, name = self._constant(itemgetter(*present)), self._constant(mapping)
            self._add(f"*{getter}({name})", *(values[key] for key in present))


def _compile(terms: list[str], objects: list[Any], constants: dict[str, Any]) -> View:
    ids = [*map(id, objects)]
    # Nothing here may hold the view: what it watches is to be freed at once, not when cycles are collected.
    refs = [weakref.ref(t, lambda _: ids.clear()) for t in objects if isinstance(t, Tensor)]
    held = tuple(value for value in objects if not isinstance(value, Tensor))
    namespace = {**constants, "ids": ids, "refs": refs, "held": held, "ABSENT": ABSENT, "is_": is_}
    source = f"def unchanged(): return [*map(id, ({''.join(f'{t}, ' for t in terms)}))] == ids\n"
    exec(compile(source, "<functrain surroundings>", "exec"), namespace)
    return View(namespace.pop("unchanged"), held)
