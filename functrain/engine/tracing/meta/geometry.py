"""Where the elements of a tensor stand in memory, and the tensors among the arguments of an operation."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def map_tensors(f: Callable[[Any], Any], value: Any) -> Any:
    """Return the argument of an operation with its tensors, if it has any, replaced.

    >>> map_tensors(torch.sum, [torch.ones(2), 3])
    [tensor(2.), 3]
    """
    if isinstance(value, Tensor):
        return f(value)
    if isinstance(value, (list, tuple)):
        values = [map_tensors(f, v) for v in value]
        return tuple(values) if type(value) is tuple else values
    return value


def tensors_in(value: Any) -> Iterator[Any]:
    """Yield the tensors of the argument of an operation.

    >>> len(list(tensors_in([torch.ones(2), 3])))
    1
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from tensors_in(v)


def same_layout(a: Any, b: Any) -> bool:
    """Return whether two tensors agree in shape, strides, dtype, device and what their memory is to be read as.

    >>> same_layout(torch.ones(2, 2), torch.ones(2, 2).t())
    False
    """
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return False
    if (a.is_conj(), a.is_neg()) != (b.is_conj(), b.is_neg()):
        return False
    return (a.shape, a.stride(), a.dtype, a.device) == (b.shape, b.stride(), b.dtype, b.device)


def is_row_major(x: Tensor) -> bool:
    """Return whether the strides are those of a new tensor, also along axes of length one, where they mean nothing.

    >>> is_row_major(torch.empty(2, 3)), is_row_major(torch.empty(2, 1).t())
    (True, False)
    """
    return x.stride() == torch.empty(x.shape, device="meta").stride()


def is_dense(x: Tensor) -> bool:
    """Return whether each element has a place of its own, and no place is left between them.

    >>> is_dense(torch.empty(2, 3).t()), is_dense(torch.empty(2, 3)[:, :2])
    (True, False)
    """
    expected = 1
    for stride, n in sorted(zip(x.stride(), x.shape, strict=True)):
        if n != 1 and stride != expected:
            return False
        expected *= n
    return expected > 0


# As the engine asks it: `Abstract.storage_offset` notes that the traced function did, and that joins the signature.
offset_of = torch._C.TensorBase.storage_offset


def extent(x: Tensor) -> tuple[int, int]:
    """Return where in its storage, in elements, a tensor begins and ends.

    >>> extent(torch.arange(10)[2::3])
    (2, 9)
    """
    start = int(offset_of(x))
    if x.numel() == 0:
        return start, start
    return start, start + 1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True))  # pyright: ignore


def bitwise_equal(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors of one shape and dtype hold the same bits: NaN equals itself, and 0.0 is not -0.0.

    >>> bitwise_equal(torch.tensor([0.0]), torch.tensor([-0.0]))
    False
    """
    if a.shape != b.shape or a.dtype is not b.dtype:
        return False
    a, b = (t.detach().resolve_conj().resolve_neg().contiguous().view(-1) for t in (a, b))
    return torch.equal(a.view(torch.uint8), b.view(torch.uint8))
