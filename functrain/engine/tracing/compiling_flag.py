"""`torch.compiler.is_compiling()` is true in a trace, so that library code takes the branch that can be compiled."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_lock = threading.Lock()
_traces = 0
_before = False


@contextmanager
def compiling() -> Iterator[None]:
    """Say that code is being compiled, as long as a trace runs in any thread.

    >>> with compiling():
    ...     torch.compiler.is_compiling()
    True
    >>> torch.compiler.is_compiling()
    False
    """
    global _traces, _before
    with _lock:
        if _traces == 0:
            _before, torch.compiler._is_compiling_flag = torch.compiler._is_compiling_flag, True
        _traces += 1
    try:
        yield
    finally:
        with _lock:
            _traces -= 1
            if _traces == 0:
                torch.compiler._is_compiling_flag = _before
