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
SELDOM = (100_000, 100, 100)
"""When the garbage collector looks for cycles while a function is traced: it would look through the same graph again
and again, for a fifth of the time."""


@contextmanager
def tracing() -> Iterator[None]:
    """Trace and compile, one thread at a time, as PyTorch's compilers set options for the whole process.

    >>> with tracing():
    ...     gc.get_threshold()
    (100000, 100, 100)
    """
    with _tracing:
        before = gc.get_threshold()
        gc.set_threshold(*SELDOM)
        try:
            yield
        finally:
            gc.set_threshold(*before)


def one_at_a_time() -> Any:
    """Return the lock of `tracing`, for forward derivatives: PyTorch counts their levels for the whole process.

    >>> with one_at_a_time():
    ...     pass
    """
    return _tracing


donating = _lock()
"""Held while donated tensors are looked at and taken: of two threads that donate one tensor, one is refused."""
