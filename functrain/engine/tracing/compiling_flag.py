"""`torch.compiler.is_compiling()` is true in a trace, so that library code takes the branch that can be compiled.

PyTorch keeps the answer in one variable for the process. A thread that trains eagerly meanwhile must not get another
answer, so the variable holds what asks which thread it is.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_lock = threading.RLock()
_traces = 0


class _InThisThread(threading.local):
    """True in the threads that trace; elsewhere what the flag was before, and so it compares and reads."""

    traces = 0
    before: Any = False

    def __bool__(self) -> bool:
        return self.traces > 0 or bool(_InThisThread.before)

    def __eq__(self, other: object) -> bool:
        return bool(self) == other

    def __hash__(self) -> int:
        return hash(bool(self))

    # Library code computes with what it takes for a bool: `tracing |= torch.compiler.is_compiling()`.
    def __or__(self, other: Any) -> Any:
        return bool(self) | other

    def __and__(self, other: Any) -> Any:
        return bool(self) & other

    def __xor__(self, other: Any) -> Any:
        return bool(self) ^ other

    __ror__, __rand__, __rxor__ = __or__, __and__, __xor__

    def __int__(self) -> int:
        return int(bool(self))

    __index__ = __int__

    def __repr__(self) -> str:
        return repr(bool(self))


_flag = _InThisThread()


@contextmanager
def compiling() -> Iterator[None]:
    """Say that code is being compiled, to code that runs in this thread.

    >>> with compiling():
    ...     torch.compiler.is_compiling()
    True
    >>> torch.compiler.is_compiling()
    False
    """
    global _traces
    with _lock:
        if torch.compiler._is_compiling_flag is not _flag:  # a compiler in another thread may have put it back
            _InThisThread.before = torch.compiler._is_compiling_flag
            torch.compiler._is_compiling_flag = _flag  # pyright: ignore
        _traces += 1
    _flag.traces += 1
    try:
        yield
    finally:
        _flag.traces -= 1
        with _lock:
            _traces -= 1
            if _traces == 0:
                torch.compiler._is_compiling_flag = _InThisThread.before
