"""Rows by number: `x[k]` where k is a tensor without axes, of which PyTorch asks for the value; a trace has none.

The row is taken by an operation that reads the number when it runs. PyTorch's row is a view of the tensor, this one is
a copy; what would show the difference, a write to either of them while the other is still used, is refused.
"""

import functools
import itertools
from typing import Any

import torch
from torch import Tensor

from functrain.dispatch_contexts import unseen
from functrain.dispatch_state import innermost
from functrain.engine.tracing.recording import recording
from functrain.engine.tracing.refusals import Refused
from functrain.engine.tracing.rows.copied_rows import index_of
from functrain.engine.tracing.rows.filling import fill, is_mapped, refuse_dtypes
from functrain.errors import InvalidArgument

_BASIC = (int, slice, type(None), type(...))


def get_item(x: Tensor, index: Any) -> Any:
    """Return the rows; what a mask of no axes selects has none or one, which is no fixed shape.

    >>> get_item(torch.arange(3), torch.tensor(-1))
    tensor(2)
    """
    parts = index_of(index)
    if not any(map(is_number, parts)):
        return _by_views(x, index, parts)
    rows = x
    for k, axis in _numbers(x, parts):
        rows = Tensor.__getitem__(rows, (*itertools.repeat(slice(None), axis), parts[k].reshape(1).long()))
    row = _by_views(rows, tuple(0 if is_number(part) else part for part in parts), parts)
    current = recording()
    if current is not None and is_row(index):
        with unseen():
            current.note_copy(innermost(row), innermost(x), parts)
    return row


def set_item(x: Tensor, index: Any, value: Any) -> None:
    """Write rows by number; and where a mask of no axes is true: PyTorch asks for its value, one of one axis says it.

    >>> x = torch.zeros(3)
    >>> set_item(x, torch.tensor(-1), 2.0)
    >>> x
    tensor([0., 0., 2.])
    """
    parts = index_of(index)
    flags = [k for k, part in enumerate(parts) if _is_flag(part)]
    others = [part for part in parts if not (_is_flag(part) or is_number(part))]
    is_basic = all(isinstance(part, _BASIC) and not isinstance(part, bool) for part in others)
    if any(map(is_mask, parts)) and is_mapped(x, *parts, value):
        set_where(x, parts, value)
        return
    if flags:
        _check_dtype(x, value)
    if is_basic and not flags and len(others) < len(parts):
        _set_rows(x, parts, value)
    elif is_basic and len(flags) == 1 and len(others) == len(parts) - 1:
        _set_where(x, parts, flags[0], value)
    elif is_basic and flags and isinstance(value, (Tensor, bool, int, float, complex)):
        _set_where_all(x, parts, value)
    elif any(map(is_number, parts)) and not flags:
        _check_dtype(x, value)
        _set_elements(x, index, value)
    elif any(map(_is_list, parts)) and not any(map(is_mask, parts)) and is_mapped(x, *parts, value):
        _set_at(x, parts, value)
    else:
        Tensor.__setitem__(x, index, value)


def _check_dtype(x: Tensor, value: Any) -> None:
    # As PyTorch does here; a mask of one axis, which stands for this one, takes a number of any dtype.
    if isinstance(value, Tensor) and value.dtype is not x.dtype:
        refuse_dtypes(x, value)


def set_where(x: Tensor, parts: tuple, value: Any, accumulate: bool = False) -> None:
    """Write where a mask among the parts of an index is true, each row of a batch at its own places.

    >>> x = torch.zeros(2, 3)
    >>> set_where(x, (slice(None), torch.tensor([True, False, True])), 1.0)
    >>> x
    tensor([[1., 0., 1.],
            [1., 0., 1.]])
    """
    masks = [k for k, part in enumerate(parts) if is_mask(part)]
    if all(_is_flag(parts[k]) for k in masks) and len(masks) > 1 and not accumulate:
        _set_where_all(x, parts, value)
        return
    if len(masks) > 1 or any(_is_list(part) and not is_mask(part) for part in parts):
        raise InvalidArgument(_BESIDE)
    k = masks[0]
    mask = torch.as_tensor(parts[k], device=x.device)
    rest = (*parts[:k], *itertools.repeat(slice(None), mask.dim()), *parts[k + 1 :]) or (...,)
    before = sum(map(_is_axis, parts[:k]))
    if any(part is ... for part in parts[:k]):
        before += x.dim() - sum(map(_axes, parts))
    rows = get_item(x, rest)
    fill(rows, before, mask, value, accumulate)
    if any(map(is_number, parts)):
        set_item(x, rest, rows)


_BESIDE = (
    "vmap: x[...] = value by a mask beside another, or beside a list or a tensor of indices, selects another number of "
    "elements of each example; make one mask of all, or write with torch.where(mask, value, x)"
)


def _is_axis(part: Any) -> bool:
    return part is None or isinstance(part, slice)


def _is_flag(index: Any) -> bool:
    # Bytes are masks too, to PyTorch; other integers are numbers.
    return isinstance(index, Tensor) and index.dim() == 0 and index.dtype in (torch.bool, torch.uint8)


def is_number(index: Any) -> bool:
    """Return whether a part of an index is a tensor that stands for a number.

    >>> is_number(torch.tensor(1)), is_number(torch.tensor(True)), is_number(1)
    (True, False, False)
    """
    if not isinstance(index, Tensor) or index.dim() or index.is_floating_point() or index.is_complex():
        return False
    return index.dtype not in (torch.bool, torch.uint8)  # these are masks


def is_row(index: Any) -> bool:
    """Return whether what PyTorch takes by an index is a view, if tensors in it stand for numbers.

    >>> is_row((torch.tensor(1), slice(2))), is_row((torch.tensor(1), [0, 1]))
    (True, False)
    """
    return all(isinstance(part, _BASIC) or is_number(part) for part in index_of(index))


def _by_views(x: Tensor, index: Any, parts: tuple) -> Tensor:
    try:
        return Tensor.__getitem__(x, index)
    except Refused as refused:
        raise (Refused("shape") if any(map(_is_flag, parts)) and refused.kind == "value" else refused) from None


def _numbers(x: Tensor, parts: tuple) -> list[tuple[int, int]]:
    """Return for each number among the parts of an index its place there, and the axis that it belongs to."""
    taken = [_axes(part) for part in parts]
    rest = x.dim() - sum(taken)
    made, axis = [], 0
    for k, part in enumerate(parts):
        if is_number(part):
            made.append((k, axis))
        axis += rest if part is ... else taken[k]
    if axis > x.dim():
        raise IndexError(f"too many indices for tensor of dimension {x.dim()}")
    return made


def _axes(part: Any) -> int:
    """Return how many axes of a tensor a part of an index stands for; an ellipsis is counted apart."""
    if part is None or part is ... or isinstance(part, bool):
        return 0
    if isinstance(part, Tensor):
        return part.dim() if part.dtype in (torch.bool, torch.uint8) else 1
    depth = 0
    while isinstance(part, (list, tuple)) and part:
        part, depth = part[0], depth + 1
    return depth if isinstance(part, bool) else 1


def _set_rows(x: Tensor, parts: tuple, value: Any) -> None:
    current = recording()
    if current is not None and isinstance(value, Tensor):
        with unseen():
            current.put_back(innermost(value), innermost(x), parts)
    # The axes of the numbers come first: then the value belongs to what is left, as if these were not there.
    rows = Tensor.__getitem__(x, tuple(slice(None) if is_number(part) else part for part in parts))
    made, axis = [], 0
    rest = x.dim() - sum(map(_axes, parts))
    for part in parts:
        if is_number(part):
            made.append(axis)
        axis += rest if part is ... else part is None or isinstance(part, slice) or is_number(part)
    numbers = tuple(part.reshape(1).long() for part in parts if is_number(part))
    value = value.to(x.dtype) if isinstance(value, Tensor) else value
    Tensor.__setitem__(rows.movedim(made, list(range(len(made)))), numbers, value)


def _is_list(part: Any) -> bool:
    return isinstance(part, (list, tuple)) or (isinstance(part, Tensor) and part.dim() > 0)


def is_mask(part: Any) -> bool:
    """Return whether a part of an index says of each place whether it is meant.

    >>> is_mask([True, False]), is_mask(torch.tensor([0, 1])), is_mask(torch.tensor([0, 1], dtype=torch.uint8))
    (True, False, True)
    """
    if isinstance(part, (list, tuple)):
        return any(map(is_mask, part))
    return isinstance(part, bool) or (isinstance(part, Tensor) and part.dtype in (torch.bool, torch.uint8))


def _set_at(x: Tensor, parts: tuple, value: Any) -> None:
    """Write by tensors of indices, whose axes are put first: PyTorch's vmap confuses those of the value else (2.13)."""
    made = [torch.as_tensor(part, device=x.device) if isinstance(part, (list, tuple)) else part for part in parts]
    indices = tuple(part for part in made if isinstance(part, Tensor))
    seen = Tensor.__getitem__(x, tuple(slice(None) if isinstance(part, Tensor) else part for part in made))
    axes, axis, rest = [], 0, x.dim() - sum(map(_axes, made))
    for part in made:
        axes += [axis] if isinstance(part, Tensor) else []
        axis += rest if part is ... else not isinstance(part, int)
    first, count = axes[0], len(torch.broadcast_shapes(*(index.shape for index in indices)))
    if axes != list(range(len(axes))):
        seen = seen.movedim(axes, list(range(len(axes))))
        if isinstance(value, Tensor) and axes == list(range(first, first + len(axes))):  # as its own axes stand
            value = _with_axes(value, count + seen.dim() - len(axes))
            value = value.movedim(list(range(first, first + count)), list(range(count)))
    Tensor.__setitem__(seen, indices, value)


def _with_axes(value: Tensor, dims: int) -> Tensor:
    while value.dim() > dims and value.shape[0] == 1:  # PyTorch drops these too
        value = value[0]
    return value[(None,) * (dims - value.dim())] if value.dim() < dims else value


def _set_where_all(x: Tensor, parts: tuple, value: Any) -> None:
    """Write where several masks of no axes are true, or one beside numbers; elsewhere, what is there."""
    rest = tuple(part for part in parts if not _is_flag(part)) or (...,)
    rows = get_item(x, rest)
    value = value if isinstance(value, Tensor) else torch.full((), value, dtype=x.dtype, device=x.device)
    while value.dim() > rows.dim() and value.shape[0] == 1:  # PyTorch drops these too
        value = value[0]
    if value.dim() > rows.dim():  # its axes belong to those that the masks make
        Tensor.__setitem__(x, parts, value)
        return
    condition = functools.reduce(torch.logical_and, [part.bool() for part in parts if _is_flag(part)])
    set_item(x, rest, torch.where(condition, value, rows))


def _set_where(x: Tensor, parts: tuple, k: int, value: Any) -> None:
    rows = Tensor.__getitem__(x, (*parts[:k], None, *parts[k + 1 :]))
    before = sum(part is None or isinstance(part, slice) for part in parts[:k])
    if any(part is ... for part in parts[:k]):
        others = [part for part in parts if not _is_flag(part)]
        before += x.dim() - sum(isinstance(part, (int, slice)) for part in others)
    Tensor.__setitem__(rows, (*itertools.repeat(slice(None), before), parts[k].reshape(1).bool()), value)


def _set_elements(x: Tensor, index: Any, value: Any) -> None:
    """Write by numbers beside lists and tensors of indices, to the elements that these take from their positions."""
    places = get_item(torch.arange(x.numel(), device=x.device).view(x.shape), index)
    value = torch.as_tensor(value, dtype=x.dtype, device=x.device)
    extra = max(value.dim() - places.dim(), 0)  # a value may have more axes, of one element, before the others
    if all(n == 1 for n in value.shape[:extra]):
        value = value.reshape(value.shape[extra:])
    elements = value.expand(places.shape).reshape(-1)
    x.copy_(x.reshape(-1).index_put((places.reshape(-1),), elements).view(x.shape))
