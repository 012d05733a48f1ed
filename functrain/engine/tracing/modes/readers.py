"""Methods that read the memory of tensors without any operation, made to ask where PyTorch asks no mode.

C++ calls code of the user's in the middle of a function: the hooks that keep tensors for a backward pass, the kernel
for gradients of an operator, a dispatch mode. There every mode of functions is off. And of what is done to a storage,
as `pickle` does, no mode hears at all.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
from torch import Tensor, UntypedStorage

Answer = Callable[..., Any]


@attrs.frozen(eq=False)
class Methods:
    """Methods of classes that are others while somebody is asked.

    Attributes:
        of: (class, name) of each.
        askers: a list entry for each block in which they are.
    """

    of: tuple[tuple[type, str], ...]
    askers: list[Answer] = attrs.field(factory=list)


def _methods(kind: type, *names: str) -> tuple[tuple[type, str], ...]:
    return tuple((kind, name) for name in names if hasattr(kind, name))


OF_TENSORS = Methods(_methods(Tensor, "tolist", "numpy", "data_ptr", "const_data_ptr", "apply_", "map_", "map2_"))
"""Methods written in C; those written in Python stand on them."""

READING = ("data_ptr", "__getitem__", "copy_", "_write_file", "_share_fd_cpu_", "_share_filename_cpu_", "_share_cuda_")
WRITING = ("__setitem__", "fill_", "resize_", "byteswap", "_byteswap", "_set_from_file", "_swap_data_ptr_")
OF_STORAGES = Methods((*_methods(Tensor, "__reduce_ex__"), *_methods(UntypedStorage, *READING, *WRITING)))
"""Methods of storages, those of a `TypedStorage` stand on them; and what `pickle` and `copy.copy` ask of a tensor."""

_lock = threading.Lock()


@contextmanager
def asking(answer: Answer, methods: Methods = OF_TENSORS) -> Iterator[None]:
    """Run a block in which a function answers for methods, in all threads.

    Args:
        answer: (name, method, its object, *args, **kwargs) -> what the method returns.
        methods: which.

    >>> import torch
    >>> with asking(lambda name, method, tensor: [*method(tensor), name]):
    ...     torch.ones(2).tolist()
    [1.0, 1.0, 'tolist']
    >>> torch.ones(2).tolist()
    [1.0, 1.0]
    """
    with _lock:
        methods.askers.append(answer)
        if len(methods.askers) == 1:
            for kind, name in methods.of:
                _own[kind, name] = vars(kind).get(name)
                setattr(kind, name, _asking(name, getattr(kind, name), answer))
    try:
        yield
    finally:
        with _lock:
            methods.askers.pop()
            if not methods.askers:
                for kind, name in methods.of:
                    _restore(kind, name, _own.pop((kind, name)))


_own: dict[tuple[type, str], Any] = {}
"""What the class itself had, None where it inherits the method."""


def _restore(kind: type, name: str, own: Any) -> None:
    if own is None:
        delattr(kind, name)
    else:
        setattr(kind, name, own)


def _asking(name: str, method: Any, answer: Answer) -> Callable:
    def ask(this: Any, *args: Any, **kwargs: Any) -> Any:
        return answer(name, method, this, *args, **kwargs)

    return ask
