"""Who looks at the layers of a model while it is applied: `capture` and `summary`.

Combinators and `from_module` say when a layer begins and what it returned; where nobody looks, that costs 0.1
microseconds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol


class Observer(Protocol):
    """Looks at layers; both functions get the path from the root of what is applied."""

    def enter(self, path: tuple[Any, ...]) -> None:
        """Look, before a layer is applied."""
        ...

    def leave(self, path: tuple[Any, ...], layer: Any, y: Any) -> None:
        """Look at what a layer returned."""
        ...


_observers: ContextVar[tuple[Observer, ...]] = ContextVar("observers", default=())


@contextmanager
def observe(observer: Observer) -> Iterator[None]:
    """Let an observer look at each layer that is applied inside this context."""
    token = _observers.set((*_observers.get(), observer))
    try:
        yield
    finally:
        _observers.reset(token)


def is_observed() -> bool:
    """Return whether anyone looks.

    >>> is_observed()
    False
    """
    return bool(_observers.get())


def note_entry(path: tuple[Any, ...]) -> None:
    """Say that the layer at a path is about to be applied."""
    for observer in _observers.get():
        observer.enter(path)


def note_return(path: tuple[Any, ...], layer: Any, y: Any) -> None:
    """Say what the layer at a path returned."""
    for observer in _observers.get():
        observer.leave(path, layer, y)
