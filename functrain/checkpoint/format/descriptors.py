"""Descriptors that do not stay open, wherever Ctrl-C comes.

`KeyboardInterrupt` is raised between any two instructions of Python, those of a `finally` too, and never inside a
function of C. So one call of C opens a file and puts its descriptor into a list, one call of C takes it out and closes
it; and what cleans up is called twice, for Ctrl-C may come into the first call.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

Opened = list[int | None]
"""Where a descriptor stands while it is open: None, and then the descriptor."""


@contextmanager
def surely(clean_up: Callable[[], Any]) -> Iterator[None]:
    """Call a function when a block is left, and a second time, when there may be nothing left to do.

    >>> with surely(lambda: print("clean")):
    ...     print("work")
    work
    clean
    clean
    """
    try:
        try:
            yield
        finally:
            clean_up()
    finally:
        clean_up()


@contextmanager
def opened(path: Path, flags: int, mode: int = 0o666) -> Iterator[int]:
    """Open a file or a folder, as its descriptor, which no program inherits.

    >>> with opened(Path("."), os.O_RDONLY) as folder:
    ...     os.path.isdir(folder)
    True
    """
    place = nothing_opened()
    with surely(partial(close, place)):
        yield open_into(place, path, flags, mode)


def nothing_opened() -> Opened:
    """Return a place for a descriptor.

    >>> close(nothing_opened())
    """
    return [None]


def open_into(place: Opened, path: Path, flags: int, mode: int = 0o666) -> int:
    """Open a file or a folder, and return its descriptor, which is in its place by then.

    >>> place = nothing_opened()
    >>> open_into(place, Path("."), os.O_RDONLY) == place[-1]
    True
    >>> close(place)
    """
    place.extend(map(os.open, (path,), (flags | os.O_CLOEXEC,), (mode,)))
    return place[-1]  # pyright: ignore[reportReturnType]


def close(place: Opened) -> None:
    """Close what was opened, unless that was done.

    >>> place = nothing_opened()
    >>> close(place)
    >>> close(place)
    """
    if place:
        any(map(os.close, iter(place.pop, None)))  # pyright: ignore[reportArgumentType]
