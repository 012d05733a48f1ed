"""Things of which not all is in a `__dict__` or a plain container: objects with slots, namespaces, own dicts, lists."""

import types
from typing import Any

from functrain.nn.interop.keeping.walking import base_of, slots_of


class Attributes:
    """The attributes of an object as parts by name."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __getitem__(self, name: str) -> Any:
        try:
            return object.__getattribute__(self._thing, name)
        except AttributeError:
            raise KeyError(name) from None

    def __setitem__(self, name: str, value: Any) -> None:
        object.__setattr__(self._thing, name, value)


class Items:
    """The items of an own dict or list as parts by key, whatever its methods do."""

    def __init__(self, thing: Any, base: Any) -> None:
        self._thing, self._base = thing, base

    def __getitem__(self, key: Any) -> Any:
        return self._base.__getitem__(self._thing, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._base.__setitem__(self._thing, key, value)


def is_other(source: Any) -> bool:
    """Return whether a thing is one of these."""
    kind = type(source)
    return base_of(kind) is not None or kind is types.SimpleNamespace or bool(slots_of(kind))


def begin(others: list[tuple[int, Any, Any]], things: list[Any], parts: list[Any]) -> None:
    """Make each of these with what of it is not made anew.

    Args:
        others: the number, the source and the parts by key of each.
        things: where they are put, by number.
        parts: where what holds their parts is put.
    """
    for number, source, own in others:
        kind = type(source)
        base = base_of(kind)
        if base is None:
            things[number] = thing = types.SimpleNamespace() if kind is types.SimpleNamespace else object.__new__(kind)
            parts[number] = held = Attributes(thing)
        else:
            things[number] = thing = base.__new__(kind)  # pyright: ignore
            if base is list:
                list.extend(thing, own.values())
            vars(thing).update(vars(source)) if hasattr(thing, "__dict__") else None
            parts[number] = held = Items(thing, base)
        for key, value in own.items():
            held[key] = value
