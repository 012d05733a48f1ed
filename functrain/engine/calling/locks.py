"""What one thread does at a time."""

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def _lock() -> Any:
    made: Any = threading.RLock()
    if hasattr(os, "register_at_fork"):  # a child has none of the threads that may hold it
        os.register_at_fork(after_in_child=made._at_fork_reinit)
    return made


_tracing = _lock()
SELDOM = (500_000, 100, 100)
"""When the garbage collector looks for cycles while a function is traced: it would look through the same graph again
and again, for a fifth of the time."""


class _Collecting:
    """How often the garbage collector works: who asks for it seldom is counted, as threads may overlap."""

    def __init__(self) -> None:
        self.lock, self.count, self.before = _lock(), 0, SELDOM

    def begin(self) -> None:
        with self.lock:
            if self.count == 0:
                self.before = gc.get_threshold()
                gc.set_threshold(*SELDOM)
            self.count += 1

    def end(self) -> None:
        with self.lock:
            self.count -= 1
            if self.count == 0:
                gc.set_threshold(*self.before)


_collecting = _Collecting()


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """Have the garbage collector look for cycles seldom.

    >>> with seldom_collecting():
    ...     gc.get_threshold()
    (500000, 100, 100)
    """
    _collecting.begin()
    try:
        yield
    finally:
        _collecting.end()


@contextmanager
def tracing() -> Iterator[None]:
    """Trace and compile, one thread at a time, as PyTorch's compilers set options for the whole process.

    >>> with tracing():
    ...     gc.get_threshold()
    (500000, 100, 100)
    """
    with _tracing, seldom_collecting():
        yield


def one_at_a_time() -> Any:
    """Return the lock of `tracing`, for forward derivatives: PyTorch counts their levels for the whole process.

    >>> with one_at_a_time():
    ...     pass
    """
    return _tracing


donating = _lock()
"""Held while donated tensors are looked at and taken: of two threads that donate one tensor, one is refused."""
