"""Donation: arguments whose memory a compiled function may use for its results.

A donated tensor changes its class before the compiled function runs, which is passed another tensor of its memory: the
new class answers every use with `DonatedValueUsed`, in other threads too. That costs some 50 ns a tensor, and nothing
when it is not used.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from functrain.engine.graph.in_place import duplicate
from functrain.engine.tracing.meta.geometry import is_dense
from functrain.errors import DonatedValueUsed

holders = torch._C._storage_Use_Count
_alone = torch.empty(1)
ALONE = holders(_alone.untyped_storage()._cdata)
"""How many hold the storage of a tensor that shares it with no other: the tensor, and the Python object of it."""


_REMEDY = ", which has been reused for the result; go on with the value that the call returned, or donate a copy"


class Donated(Tensor):
    """The class of a tensor that has been donated. Its subclasses, made by `donated_class`, know what it was."""

    described = "a tensor"

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        """Raise `DonatedValueUsed`, whatever is done with the tensor."""
        names = [t.described for t in types if issubclass(t, Donated)] or [cls.described]
        more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        raise DonatedValueUsed(f"{names[0]}{more}{_REMEDY}")

    def __repr__(self, *, tensor_contents=None):
        return f"<{type(self).described}>"


def donated_class(function: str, path: str) -> type[Donated]:
    """Return the class for a tensor donated to a function at some dotted path.

    >>> x = torch.ones(2)
    >>> x.__class__ = donated_class("step", "state.params.weight")
    >>> x
    <state.params.weight was donated to step>
    >>> x + 1
    Traceback (most recent call last):
        ...
    functrain.errors.DonatedValueUsed: state.params.weight was donated to step, which has been reused for the result; \
go on with the value that the call returned, or donate a copy
    """
    return type("Donated", (Donated,), {"described": f"{path} was donated to {function}"})


def lost_class(cls: type[Donated]) -> type[Donated]:
    """Return the class for a donated tensor whose values a call that failed has overwritten in part."""
    return type("Donated", (cls,), {"described": f"{cls.described}, whose call then failed"})


class Taken:
    """The donated tensors of a call, of which nobody can make use any more.

    Attributes:
        tensors: the donated tensors.
        kinds: what their classes were.
    """

    def __init__(self, originals: list[Tensor], tensors: list[Tensor], classes: dict[int, type]) -> None:
        """Take the tensors, and put others of the same memory into the list in their place."""
        check_usable((type(originals[i]).__name__, originals[i]) for i in classes)
        for i in classes:
            tensors[i] = tensors[i].data if tensors[i] is originals[i] else tensors[i]
        self.tensors = tuple(originals[i] for i in classes)
        self.kinds = tuple(map(type, self.tensors))
        for tensor, cls in zip(self.tensors, classes.values(), strict=True):
            tensor.__class__ = cls


def check_usable(named: Iterable[tuple[str, Any]]) -> None:
    """Raise `DonatedValueUsed` when one of the leaves has been donated before."""
    for path, leaf in named:
        if isinstance(leaf, Donated):
            raise DonatedValueUsed(f"{path}: {type(leaf).described}{_REMEDY}")


def pair(
    donated: dict[int, tuple[str, Tensor]], results: list[tuple[str, Tensor | None, int | None]]
) -> dict[int, int]:
    """Return which result is put into the memory of which donated input: input -> result.

    A result that is a donated input itself keeps its memory; then each result looks for an input of its shape, strides,
    dtype and device, first at its own dotted path, then at any.

    Args:
        donated: path and tensor by the index of the input.
        results: for each result its path, its tensor, and the index of the input that it is, or None.
    """
    chosen: dict[int, int] = {}
    taken: set[int] = set()
    for k, (_, _, same) in enumerate(results):
        if same in donated and same not in chosen:
            chosen[same] = k
            taken.add(k)
    by_layout: dict[tuple, list[int]] = {}
    for i, (_, tensor) in donated.items():
        if i not in chosen and is_dense(tensor):
            by_layout.setdefault(_layout(tensor), []).append(i)
    for at_same_path in (True, False):
        for k, (path, tensor, same) in enumerate(results):
            free = by_layout.get(_layout(tensor), []) if tensor is not None and k not in taken and same is None else []
            for i in free:
                if not at_same_path or _ends_alike(donated[i][0], path):
                    chosen[i] = k
                    taken.add(k)
                    free.remove(i)
                    break
    return chosen


def _layout(tensor: Tensor) -> tuple:
    return tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device


def _ends_alike(argument: str, result: str) -> bool:
    # "state.params.w" of an argument is ".params.w" of the first result or of the only one: compare from the end.
    inside = argument.partition(".")[2]
    return inside == result or result.endswith("." + inside) or (not inside and "." not in result)


def separate(
    tensors: list[Tensor],
    originals: list[Tensor],
    written: Iterable[int],
    constants: list[Tensor],
    whole: frozenset[int],
) -> list[Tensor]:
    """Return the tensors with a copy in place of each one to be written to whose memory somebody else may hold.

    Args:
        tensors: the inputs of a compiled function.
        originals: what the caller passed for them.
        written: which of them are written to.
        constants: tensors that the function closes over.
        whole: the inputs of which the function looks at the storage, beyond their own elements.
    """
    closed = {id(t) for t in constants}
    result = list(tensors)
    for i in written:
        same = id(originals[i]) in closed or tensors[i] is not originals[i]
        if same or holders(tensors[i].untyped_storage()._cdata) > ALONE:
            result[i] = copy_whole(tensors[i]) if i in whole else duplicate(tensors[i])
    return result


def copy_whole(tensor: Tensor) -> Tensor:
    """Return a copy of a tensor that stands in a copy of its whole storage, at the same place.

    >>> copy_whole(torch.arange(5)[2:]).storage_offset()
    2
    """
    storage = tensor.untyped_storage().clone()
    return torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(  # pyright: ignore
        storage, tensor.storage_offset(), tensor.shape, tensor.stride()
    )
