"""The quick check that a static value is what it was: Python code that is generated for the value."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from functrain.engine.statics.attributes import fields, is_frozen, is_record, state
from functrain.engine.statics.static_values import PLAIN, is_settled, plain_float, snapshot

MOST_LINES = 100
"""How long a generated check may become."""


def same_as(value: Any) -> Callable[[Any], bool]:
    """Return the quickest function that says whether another value is identical to this one as it is now.

    For a small value it is generated: it takes apart the very tuples, dicts and records that the value is made of.

    >>> is_pair = same_as((1, 2))
    >>> is_pair((1, 2)), is_pair((1, 2.0))
    (True, False)
    """
    lines: list[str] = []
    constants: dict[str, Any] = {"original": value}
    try:
        _write(lines, constants, "v", value)
    except _TooLong:
        return _same_picture(value)
    if is_settled(value) and not isinstance(value, Tensor):
        lines.insert(0, "if v is original: return True")
    else:
        del constants["original"]
    # A record that was made past its __init__ may lack a field.
    body = "\n        ".join(["try:", *lines, "return True"])
    source = f"def same(v):\n    {body}\n    except AttributeError: return False\n"
    exec(compile(source, "<functrain same>", "exec"), constants)
    return constants.pop("same")


class _TooLong(Exception):
    """A value has so many parts that its check is not generated; never leaves this module."""


def _write(lines: list[str], constants: dict[str, Any], name: str, value: Any) -> None:
    """Write the lines that return False unless the variable of this name holds what is identical to the value."""
    if len(lines) > MOST_LINES:
        raise _TooLong
    kind, at = type(value), f"c{len(lines)}"
    constants[f"t_{at}"] = kind
    if kind in PLAIN or (kind is float and type(plain_float(value)) is float):
        constants[at] = value
        lines.append(f"if {name} is not {at} and (type({name}) is not t_{at} or {name} != {at}): return False")
    elif kind is tuple or kind is list:
        lines.append(f"if type({name}) is not t_{at} or len({name}) != {len(value)}: return False")
        _write_parts(lines, constants, name, list(value), name)
    elif kind is dict and all(type(key) is str for key in value):
        constants[at], constants[f"k_{at}"] = list(value), {*map(type, value)}
        lines.append(f"if type({name}) is not t_{at} or [*{name}] != {at}: return False")
        lines.append(f"if {{*map(type, {name})}} != k_{at}: return False")
        _write_parts(lines, constants, name, list(value.values()), f"{name}.values()")
    elif _is_plain_record(value, kind):
        lines.append(f"if type({name}) is not t_{at}: return False")
        for k, field in enumerate(fields(kind)):
            lines.append(f"{name}_{k} = {name}.{field}")
            _write(lines, constants, f"{name}_{k}", getattr(value, field))
    else:
        constants[at] = _same_picture(value)
        lines.append(f"if not {at}({name}): return False")


def _is_plain_record(value: Any, kind: type) -> bool:
    if kind.__eq__ is object.__eq__ or not is_record(kind) or not is_frozen(kind) or hasattr(kind, "__getattr__"):
        return False
    return state(value).keys() >= set(fields(kind))


def _write_parts(lines: list[str], constants: dict[str, Any], name: str, parts: list[Any], source: str) -> None:
    if parts:
        lines.append(f"{''.join(f'{name}_{k}, ' for k in range(len(parts)))} = {source}")
    for k, part in enumerate(parts):
        _write(lines, constants, f"{name}_{k}", part)


def _same_picture(value: Any) -> Callable[[Any], bool]:
    kind, then = type(value), snapshot(value)
    return lambda now: type(now) is kind and snapshot(now) == then
