"""The checks of arguments that all share: each returns the value, or raises an error that names the argument.

They stand at the bottom of the house, so that a message is worded once.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from functrain import foreign
from functrain.errors import InvalidArgument

T = TypeVar("T")

PerAxis = int | Sequence[int]
"""A whole number for all axes, or one for each."""


def whole(name: str, value: Any, minimum: int = 1, of: str = "") -> int:
    """Return a whole number after checking that it is one, and large enough; `of` names in the message what it counts.

    >>> whole("out", 10)
    10
    >>> whole("out", True)
    Traceback (most recent call last):
        ...
    functrain.errors.InvalidArgument: out must be a whole number of at least 1, got True
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        kind = f"of {of}, at" if of else "of at"
        raise InvalidArgument(f"{name} must be a whole number {kind} least {minimum}, got {value!r}")
    return value


def per_axis(name: str, value: PerAxis, dims: int, minimum: int = 1) -> tuple[int, ...]:
    """Return one whole number for each axis, from a number for all or one for each.

    >>> per_axis("kernel_size", 3, 2), per_axis("kernel_size", (3, 5), 2)
    ((3, 3), (3, 5))
    """
    values = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,) * dims
    if len(values) != dims:
        raise InvalidArgument(f"{name} must be a whole number, or one for each of {dims} axes, got {value!r}")
    return tuple(whole(name, v, minimum) for v in values)


def one_of(name: str, value: T, choices: Sequence[Any]) -> T:
    """Return a value after checking that it is one of a few, by value and type.

    >>> one_of("dims", 2, (1, 2, 3))
    2
    >>> one_of("dims", 4, (1, 2, 3))
    Traceback (most recent call last):
        ...
    functrain.errors.InvalidArgument: dims must be one of 1, 2, 3, got 4
    """
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise InvalidArgument(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def function(name: str, value: Any, what: str) -> Callable[..., Any]:
    """Return a function after checking that it can be called; `what` says what it is a function of.

    >>> function("loss", None, "(prediction, target)")
    Traceback (most recent call last):
        ...
    functrain.errors.InvalidArgument: loss must be a function of (prediction, target), got None
    """
    if not callable(value) or isinstance(value, type):
        raise InvalidArgument(f"{name} must be a function of {what}, got {foreign.in_words(value)}")
    return value
