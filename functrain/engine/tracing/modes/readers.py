"""Methods of tensors that read their memory without any operation, made to ask where PyTorch asks no mode.

C++ calls code of the user's in the middle of a function: the hooks that keep tensors for a backward pass, the kernel
for gradients of an operator, a dispatch mode. There every mode of functions is off.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

NAMES = ("tolist", "numpy", "data_ptr", "apply_", "map_", "map2_")
"""Methods written in C; those written in Python stand on them."""

_lock = threading.Lock()
_count = 0


@contextmanager
def asking(answer: Callable[..., Any]) -> Iterator[None]:
    """Run a block in which a function answers for these methods, in all threads.

    Args:
        answer: (method, tensor, *args, **kwargs) -> what the method returns.

    >>> import torch
    >>> with asking(lambda method, tensor: [*method(tensor), "asked"]):
    ...     torch.ones(2).tolist()
    [1.0, 1.0, 'asked']
    >>> torch.ones(2).tolist()
    [1.0, 1.0]
    """
    global _count
    with _lock:
        _count += 1
        if _count == 1:
            for name in NAMES:
                setattr(Tensor, name, _asking(getattr(Tensor, name), answer))
    try:
        yield
    finally:
        with _lock:
            _count -= 1
            if _count == 0:
                for name in NAMES:
                    delattr(Tensor, name)


def _asking(method: Any, answer: Callable[..., Any]) -> Callable:
    return lambda tensor, *args, **kwargs: answer(method, tensor, *args, **kwargs)
