"""What an object itself holds: its fields, its slots and its dict, read without running a property or `__getattr__`."""

import dataclasses
import threading
import types
from typing import Any


def is_record(kind: type) -> bool:
    """Return whether a class is an attrs or dataclass record.

    >>> import attrs
    >>> is_record(attrs.make_class("Point", ["x"])), is_record(int)
    (True, False)
    """
    return hasattr(kind, "__attrs_attrs__") or dataclasses.is_dataclass(kind)


def is_frozen(kind: type) -> bool:
    """Return whether the fields of a record cannot be set.

    >>> import attrs
    >>> is_frozen(attrs.make_class("Point", ["x"])), is_frozen(attrs.make_class("Point", ["x"], frozen=True))
    (False, True)
    """
    if hasattr(kind, "__attrs_attrs__"):
        return kind.__setattr__.__name__ == "_frozen_setattrs"
    return kind.__dataclass_params__.frozen  # pyright: ignore


def fields(kind: type) -> list[str]:
    """Return the names of the fields of a record.

    >>> import attrs
    >>> fields(attrs.make_class("Point", ["x", "y"]))
    ['x', 'y']
    """
    if hasattr(kind, "__attrs_attrs__"):
        return [field.name for field in kind.__attrs_attrs__]  # pyright: ignore
    return [field.name for field in dataclasses.fields(kind)]


def state(value: Any) -> dict[str, Any]:
    """Return the attributes that an object itself holds, by name; no property and no `__getattr__` runs.

    >>> state(types.SimpleNamespace(a=1))
    {'a': 1}
    """
    attributes = dict(own_dict(value) or {})
    for name, slot in slots(type(value)):
        try:
            attributes[name] = slot.__get__(value)
        except AttributeError:
            continue
    return attributes


def own_dict(value: Any) -> dict[str, Any] | None:
    """Return the dict of attributes of an object itself, None if it has none; `__getattr__` is not asked.

    >>> own_dict(types.SimpleNamespace(a=1)), own_dict(1)
    ({'a': 1}, None)
    """
    own = threading.local if isinstance(value, threading.local) else object  # the former has a dict for each thread
    try:
        attributes = own.__getattribute__(value, "__dict__")
    except (AttributeError, TypeError):
        return None
    return attributes if type(attributes) is dict else None


def slots(kind: type) -> list[tuple[str, Any]]:
    """Return the name and the descriptor of each slot of a class that is written in Python.

    >>> import attrs
    >>> [name for name, slot in slots(attrs.make_class("Point", ["x"], slots=True))]
    ['x']
    """
    return [
        (name, slot)
        for base in kind.__mro__
        if "__slots__" in vars(base)
        for name, slot in vars(base).items()
        if type(slot) is types.MemberDescriptorType
    ]
