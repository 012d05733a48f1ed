"""How records read: short words for what stands in them, without a function's address or a tensor's values.

>>> short({"weight": torch.zeros(50, 784), "loss": torch.nn.functional.mse_loss, "rate": 0.5})
"{'weight': float32(50, 784), 'loss': mse_loss, 'rate': 0.5}"
"""

import functools
import re
import types
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

MOST_ITEMS, MOST_DEEP, MOST_LETTERS = 8, 5, 100
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, type(torch.relu), type)


def tensor(value: Any) -> str:
    """Return dtype and shape of a tensor, or of an array.

    >>> tensor(torch.zeros(2, 3))
    'float32(2, 3)'
    """
    return f"{str(value.dtype).removeprefix('torch.')}{tuple(value.shape)}"


def short(value: Any, depth: int = 0) -> str:
    """Return a value in a few words: what its repr says, but tensors by shape, functions by name, much by number.

    What has a method `_repr_within_` says by it how it reads within another record, where its own repr says more.

    >>> short([torch.ones(2), None, "a", lambda x: x, functools.partial(max, 1)])
    "[float32(2,), None, 'a', lambda, partial(max, 1)]"
    """
    if hasattr(type(value), "_repr_within_"):
        return value._repr_within_()
    if isinstance(value, Tensor):
        return tensor(value)
    if isinstance(value, _FUNCTIONS):
        return str(value.__name__).replace("<lambda>", "lambda")
    if isinstance(value, torch.nn.Module):
        return f"{type(value).__name__}(...)"
    if isinstance(value, (dict, types.MappingProxyType)):
        return _bracket("{}", [f"{key!r}: {_within(item, depth)}" for key, item in _first(value.items())], value)
    if isinstance(value, list | tuple | set | frozenset) and not isinstance(value, torch.Size):
        return _sequence(value, depth)
    if hasattr(value, "func") and hasattr(value, "keywords"):
        return _partial(value, depth)
    return _plain(value)


def function(f: Any) -> str:
    """Return the name of a function.

    >>> function(torch.relu), function(lambda x: x)
    ('relu', 'lambda')
    """
    return short(f)


def _within(value: Any, depth: int) -> str:
    return short(value, depth + 1) if depth < MOST_DEEP else "..."


def _first(items: Any) -> list[Any]:
    return [item for _, item in zip(range(MOST_ITEMS), items, strict=False)]


def _bracket(brackets: str, words: list[str], whole: Any) -> str:
    more = [f"and {len(whole) - len(words)} more"] if len(whole) > len(words) else []
    comma = "," if brackets == "()" and len(whole) == 1 else ""
    return f"{brackets[0]}{', '.join(words + more)}{comma}{brackets[1]}"


def _sequence(value: Any, depth: int) -> str:
    names = getattr(value, "_fields", None)  # those of a named tuple
    words = [_within(item, depth) for item in _first(value)]
    if names is not None:
        words = [f"{name}={word}" for name, word in zip(names, words, strict=False)]
        return type(value).__name__ + _bracket("()", words, value).replace(",)", ")")
    if isinstance(value, set | frozenset):
        return _bracket("{}", sorted(words), value) if value else f"{type(value).__name__}()"
    return _bracket("[]" if isinstance(value, list) else "()", words, value)


def _partial(value: Any, depth: int) -> str:
    """Return a `functools.partial`, or what `toolz.curry` makes of a function."""
    words = [_within(item, depth) for item in value.args]
    words += [f"{name}={_within(item, depth)}" for name, item in (value.keywords or {}).items()]
    if not words:
        return short(value.func, depth)
    kind = "partial" if isinstance(value, functools.partial) else type(value).__name__
    return f"{kind}({', '.join([short(value.func, depth), *words])})"


def _plain(value: Any) -> str:
    if type(value).__repr__ is object.__repr__:
        return getattr(value, "__name__", type(value).__name__)
    if hasattr(value, "dtype") and hasattr(value, "shape") and not attrs.has(type(value)):
        return tensor(value)  # an array of another library
    first, *rest = _ADDRESS.sub("", repr(value)).splitlines() or [""]
    if isinstance(value, str) and len(first) > MOST_LETTERS:
        return f"{first[:MOST_LETTERS]}..."
    return f"{first} ..." if rest else first


def record(self: Any) -> str:
    """Return an attrs record as the call that makes it; fields at their default are left out.

    A class takes it as its `__repr__`; each `tree.node` has it.

    >>> @attrs.frozen(repr=False)
    ... class Point:
    ...     x: float
    ...     y: float = 0.0
    ...     __repr__ = record
    >>> Point(torch.ones(3)), Point(1, 2)
    (Point(x=float32(3,)), Point(x=1, y=2))
    """
    fields = [(field, getattr(self, field.name)) for field in attrs.fields(type(self)) if field.repr is not False]
    words = [f"{field.alias}={_field(field, item)}" for field, item in fields if not _is_default(field, item)]
    return f"{type(self).__name__}({', '.join(words)})"


def _field(field: Any, value: Any) -> str:
    return str(field.repr(value)) if callable(field.repr) else short(value)


def _is_default(field: Any, value: Any) -> bool:
    default = field.default
    if isinstance(default, attrs.Factory):  # pyright: ignore[reportArgumentType]
        return isinstance(value, Mapping) and not value
    if default is attrs.NOTHING or type(value) is not type(default):
        return False
    return value is default or (isinstance(value, bool | int | float | str | tuple) and _same(value, default))


def _same(a: Any, b: Any) -> bool:
    return (not a and not b) if isinstance(a, tuple) else a == b


def indent(call: str, width: int = 72) -> str:
    """Return a call that is too long for a line with one argument on each line, and so within each argument.

    >>> print(indent("serial(dense(50), residual(relu, dense(50)))", width=24))
    serial(
        dense(50),
        residual(
            relu,
            dense(50)
        )
    )
    """
    head, bracket, rest = call.partition("(")
    if len(call) <= width or not bracket or not rest.endswith(")"):
        return call
    inner = ",\n".join(indent(argument, width - 4) for argument in _arguments(rest[:-1]))
    return f"{head}(\n" + "\n".join(f"    {line}" for line in inner.splitlines()) + "\n)"


def _arguments(text: str) -> list[str]:
    """Cut a text at the commas that stand in no bracket."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]
