"""Laws: what is asserted of a part, each with a name; and comparing trees."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from functrain import tree
from functrain.errors import InvalidArgument, LawBroken

Laws = Mapping[str, Callable[[], None]]
"""The name of a law -> what raises `LawBroken` with the reason alone unless it holds."""


def hold(what: str, laws: Laws, skip: Collection[str] = ()) -> tuple[str, ...]:
    """Check laws one after another, and return the names of those that hold.

    Args:
        what: what obeys them, for messages.
        laws: the laws by name.
        skip: the names of laws that are not checked.

    Raises:
        LawBroken: one does not hold; the message says which, of what, and why.
        InvalidArgument: `skip` has a name that is none of a law.

    >>> hold("nothing", {"easy": lambda: None, "hard": lambda: break_law("it cannot")}, skip=["hard"])
    ('easy',)
    >>> hold("nothing", {"hard": lambda: break_law("it cannot")})
    Traceback (most recent call last):
        ...
    functrain.errors.LawBroken: nothing breaks the law 'hard': it cannot
    """
    unknown = [name for name in skip if name not in laws]
    if unknown:
        raise InvalidArgument(f"skip: there is no law {unknown[0]!r}; the laws are {', '.join(laws)}")
    checked = tuple(name for name in laws if name not in skip)
    for name in checked:
        _check(what, name, laws[name])
    return checked


def _check(what: str, name: str, law: Callable[[], None]) -> None:
    try:
        law()
    except LawBroken as error:
        raise LawBroken(f"{what} breaks the law {name!r}: {error}") from None
    except Exception as error:
        error.add_note(f"while the law {name!r} of {what} was checked")
        raise


def break_law(reason: str) -> None:
    """Raise `LawBroken`.

    >>> break_law("it cannot")
    Traceback (most recent call last):
        ...
    functrain.errors.LawBroken: it cannot
    """
    raise LawBroken(reason)


def same(a: Any, b: Any, what: str, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Raise `LawBroken` unless two trees are the same, bit for bit or within a tolerance.

    >>> same({"w": 1}, {"w": 2}, "two trees")
    Traceback (most recent call last):
        ...
    functrain.errors.LawBroken: two trees differ:
      w: 1 against 2
    """
    lines = tree.differences(a, b, rtol=rtol, atol=atol)
    if lines:
        break_law("\n  ".join([f"{what} differ:", *lines]))
