"""Checks of the options that layers are made with."""

from collections.abc import Sequence
from typing import Any

from functrain.errors import InvalidArgument


def whole(name: str, value: Any, minimum: int = 1) -> int:
    """Return a whole number after checking that it is one, and large enough.

    >>> whole("out", 10)
    10
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise InvalidArgument(f"{name} must be a whole number of at least {minimum}, got {value!r}")
    return value


def per_axis(name: str, value: int | Sequence[int], dims: int, minimum: int = 1) -> tuple[int, ...]:
    """Return one number for each axis of space, from a number for all or one for each.

    >>> per_axis("kernel", 3, 2), per_axis("kernel", (3, 5), 2)
    ((3, 3), (3, 5))
    """
    values = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,) * dims
    if len(values) != dims:
        raise InvalidArgument(f"{name} must be a whole number, or one for each of {dims} axes, got {value!r}")
    return tuple(whole(name, v, minimum) for v in values)


def spatial(dims: Any) -> int:
    """Return a number of dimensions of space after checking that it is 1, 2 or 3."""
    if isinstance(dims, bool) or dims not in (1, 2, 3):
        raise InvalidArgument(f"dims must be 1, 2 or 3, the axes of space, got {dims!r}")
    return dims
