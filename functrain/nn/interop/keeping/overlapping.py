"""Tensors of a module that share memory without being one tensor: as values they would be two, and come apart."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from functrain.errors import InvalidArgument
from functrain.nn.interop.keeping.leaves import FROZEN

Places = Mapping[int, Sequence[tuple[str, Tensor]]]
"""The address of a memory -> the names and tensors in it."""


def places_of(tensors: Mapping[str, Tensor]) -> Places:
    """Return tensors by the memory that they are in."""
    places: dict[int, list[tuple[str, Tensor]]] = {}
    for name, tensor in tensors.items():
        address = _address(tensor)
        if address:
            places.setdefault(address, []).append((name, tensor))
    return places


def sharer(tensor: Tensor, places: Places) -> str | None:
    """Return the name of a tensor that has elements in common with this one, None where there is none."""
    return next((name for name, other in places.get(_address(tensor), ()) if _overlap(tensor, other)), None)


def check_apart(tensors: Mapping[str, Tensor], kinds: Mapping[str, str]) -> None:
    """Raise `InvalidArgument` where a parameter or buffer shares elements with another tensor; frozen ones may."""
    for here in places_of(tensors).values():
        for k, (name, tensor) in enumerate(here):
            for other, its in here[k + 1 :]:
                if not kinds[name] == kinds[other] == FROZEN and _overlap(tensor, its):
                    raise InvalidArgument(
                        f"from_module: {name} and {other} share memory and are two tensors, so a change of one, which "
                        "changes both in PyTorch, would be lost to the other; let both names hold one tensor "
                        "(b.weight = a.weight, not b.weight.data = a.weight.data), or let one be a clone() of the other"
                    )


def _address(tensor: Tensor) -> int:
    if is_lazy(tensor) or tensor.layout is not torch.strided or tensor.is_nested or not tensor.numel():
        return 0
    try:
        return tensor.untyped_storage().data_ptr()
    except RuntimeError:  # a tensor without memory of its own, such as a fake one
        return 0


def _overlap(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors of one memory have a byte in common."""
    (start, end), (other_start, other_end) = _bytes(a), _bytes(b)
    if end <= other_start or other_end <= start:
        return False
    if a.dtype != b.dtype or (a.is_contiguous() and b.is_contiguous()):
        return True
    size = a.element_size()
    first = min(start, other_start) // size
    marks = torch.zeros(max(end, other_end) // size - first, dtype=torch.bool)
    marks.as_strided(a.shape, a.stride(), a.storage_offset() - first).fill_(True)
    return bool(marks.as_strided(b.shape, b.stride(), b.storage_offset() - first).any())


def _bytes(tensor: Tensor) -> tuple[int, int]:
    size, begin = tensor.element_size(), tensor.storage_offset()
    last = begin + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return int(begin * size), int((last + 1) * size)
