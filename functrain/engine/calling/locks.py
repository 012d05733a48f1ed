"""What one thread does at a time."""

import os
import threading
from typing import Any


def _lock() -> Any:
    made: Any = threading.RLock()
    if hasattr(os, "register_at_fork"):  # a child has none of the threads that may hold it
        os.register_at_fork(after_in_child=made._at_fork_reinit)
    return made


tracing = _lock()
"""Held while a function is traced and compiled: PyTorch's compilers set options for the whole process."""

donating = _lock()
"""Held while donated tensors are looked at and taken: of two threads that donate one tensor, one is refused."""
