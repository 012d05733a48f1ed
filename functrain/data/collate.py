"""Collate functions: a list of examples becomes one tree of tensors with a new first axis."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from functrain import tree
from functrain.errors import InvalidArgument, NotATensor, ShapeMismatch


@tree.node
class Padded:
    """Sequences of different lengths in one tensor, and which of its places are theirs.

    Attributes:
        values: shape (n, length, ...).
        mask: shape (n, length), True where a value is a sequence's own and False where it is padding.

    >>> Padded(torch.tensor([[5, 6], [7, 0]]), torch.tensor([[True, True], [True, False]])).mask.sum()
    tensor(3)
    """

    values: Tensor
    mask: Tensor


def stack(examples: Sequence[Any]) -> Any:
    """Return one tree from a list of them, with each leaf stacked along a new first axis.

    Args:
        examples: trees of one structure; a leaf is a tensor, an array or a number, of one shape throughout, or None
            throughout. Batches of one size stack too, for `scan`.

    Raises:
        InvalidArgument: there is no example.
        ShapeMismatch: a leaf has different shapes; `pad` takes sequences of different lengths.
        TreeMismatch: the trees differ.
        NotATensor: a leaf is nothing that can become a tensor.

    >>> stack([(torch.zeros(2), 3), (torch.ones(2), 4)])
    (tensor([[0., 0.],
            [1., 1.]]), tensor([3, 4]))
    """
    return tree.map_with_path(_stack, *_some(examples))


def pad(examples: Sequence[Any], length: int | None = None, value: float = 0) -> Any:
    """Return one tree from a list of them, where sequences of different lengths are filled up at their ends.

    A leaf with at least one axis is a sequence, shape (its length, ...): it becomes `Padded(values, mask)`. A number
    or a scalar is stacked. For other arguments in a loader, use `functools.partial(pad, length=100)`.

    Args:
        examples: trees of one structure; a leaf may be None throughout.
        length: the length to fill up to; None for that of the longest sequence of these examples. A constant length
            gives batches of one shape, which compile once.
        value: what to fill with.

    Raises:
        InvalidArgument: there is no example, or the length is no positive integer.
        ShapeMismatch: a sequence is longer than `length`, or the shapes after the first axis differ.
        TreeMismatch: the trees differ.
        NotATensor: a leaf is nothing that can become a tensor.

    >>> batch = pad([torch.tensor([5, 6, 7]), torch.tensor([8])])
    >>> batch.values
    tensor([[5, 6, 7],
            [8, 0, 0]])
    >>> batch.mask
    tensor([[ True,  True,  True],
            [ True, False, False]])
    """
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
        raise InvalidArgument(f"length must be a whole number of at least 1 or None, got {length!r}")
    return tree.map_with_path(partial(_pad, length, value), *_some(examples))


def _some(examples: Sequence[Any]) -> Sequence[Any]:
    if not examples:
        raise InvalidArgument("there are no examples to collate; a batch needs at least one")
    return examples


def _tensors(path: str, leaves: Sequence[Any]) -> list[Tensor]:
    try:
        return [torch.as_tensor(leaf) for leaf in leaves]
    except (TypeError, ValueError, RuntimeError):
        kinds = ", ".join(sorted({type(leaf).__name__ for leaf in leaves}))
        where = f"leaf {path} of the examples" if path else "an example"
        raise NotATensor(f"{where} must be a tensor or a number, got {kinds}; convert it in the dataset") from None


def _stack(path: str, *leaves: Any) -> Tensor | None:
    if all(leaf is None for leaf in leaves):  # the target or the weight where there is none
        return None
    tensors = _tensors(path, leaves)
    shapes = {tuple(tensor.shape): None for tensor in tensors}
    if len(shapes) > 1:
        where = f"leaf {path} of the examples" if path else "the examples"
        raise ShapeMismatch(
            f"{where} must have one shape, got {', '.join(map(str, list(shapes)[:4]))}; data.pad takes sequences of "
            "different lengths"
        )
    return torch.stack(tensors)


def _pad(length: int | None, value: float, path: str, *leaves: Any) -> Tensor | Padded | None:
    if all(leaf is None for leaf in leaves):
        return None
    tensors = _tensors(path, leaves)
    if all(tensor.dim() == 0 for tensor in tensors):
        return torch.stack(tensors)
    where = f"leaf {path} of the examples" if path else "the examples"
    rests = {tuple(tensor.shape[1:]) if tensor.dim() else "a scalar": None for tensor in tensors}
    if len(rests) > 1:
        raise ShapeMismatch(f"{where} must have one shape after the first axis, got {', '.join(map(str, rests))}")
    longest = max(len(tensor) for tensor in tensors)
    if length is not None and longest > length:
        raise ShapeMismatch(
            f"{where}: a sequence has length {longest}, more than length={length}; cut it or raise length"
        )
    return _fill(tensors, longest if length is None else length, value)


def _fill(tensors: list[Tensor], length: int, value: float) -> Padded:
    first = tensors[0]
    values = first.new_full((len(tensors), length, *first.shape[1:]), value)
    for row, tensor in zip(values, tensors, strict=True):
        row[: len(tensor)] = tensor
    lengths = torch.tensor([len(tensor) for tensor in tensors], device=first.device)
    return Padded(values, torch.arange(length, device=first.device) < lengths[:, None])
