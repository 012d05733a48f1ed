"""The batch: what one step of training or evaluation looks at."""

import dataclasses
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import foreign, tree
from functrain.dispatch_state import is_plain
from functrain.errors import DtypeMismatch, InvalidArgument, NotATensor, ShapeMismatch


@tree.node
class Batch:
    """Examples stacked along a first axis.

    Attributes:
        input: what the model takes: a tensor (n, ...), or a tree of such.
        target: what the loss compares with: a tensor (n, ...), or a tree of such; None where the loss needs none.
        weight: the weight of each example, shape (n,), zero for padding; or of each element, with more leading axes of
            what the loss gives, such as (n, time) for tokens. Finite numbers of at least 0, or booleans; others are
            refused wherever they can be read, see `check_weight`. None when each counts once.

    >>> Batch(torch.zeros(4, 3), torch.zeros(4)).weight is None
    True
    """

    input: Any
    target: Any
    weight: Tensor | None = None


def as_batch(batch: Any, padding: Tensor | None = None, what: str = "a batch") -> Batch:
    """Return a batch from what stands for one.

    Args:
        batch: a `Batch`, an (input, target) pair, or an (input, target, weight) triple; a tuple or a list.
        padding: shape (n,), zero for the rows that only fill the batch up: their weight becomes zero. It is the weight
            of a batch that has none.
        what: what the batch is called in errors.

    Returns:
        The `Batch`; the same object where it is one already and nothing is padding.

    Raises:
        InvalidArgument: it is none of these, it has no rows, or a weight is negative, infinite or NaN.
        NotATensor: the input or the target holds no tensor (a target may be None), or the weight is none.
        ShapeMismatch: input, target and weight have not the same number of rows.

    >>> as_batch((torch.zeros(2, 3), torch.tensor([0, 1]))).target
    tensor([0, 1])
    >>> as_batch((torch.zeros(2), None, torch.tensor([0.5, 2.0])), padding=torch.tensor([1.0, 0.0])).weight
    tensor([0.5000, 0.0000])
    """
    shaped = shaped_batch(batch, padding, what)
    check_weight(shaped.weight, f"{what}: weight")
    return shaped


def shaped_batch(batch: Any, padding: Tensor | None = None, what: str = "a batch") -> Batch:
    """Return what `as_batch` does, without a look at the weights' values: for those that were looked at before.

    >>> shaped_batch((torch.zeros(2), None)).target is None
    True
    """
    if not isinstance(batch, Batch):
        batch = Batch(*parts(batch, what))
    _check(batch, what)
    return batch if padding is None else tree.evolve(batch, weight=_pad(batch.weight, padding))


def parts(value: Any, what: str, hint: str = "") -> tuple[Any, Any, Any]:
    """Return (input, target, weight) of an example, a batch or the arrays of a dataset; the weight may be None.

    Args:
        value: an (input, target) pair, an (input, target, weight) triple, or a `Batch`.
        what: what it is called in the error.
        hint: the end of the error, with the remedy.

    Raises:
        InvalidArgument: it is none of these.

    >>> parts((0.5, 1), "an example")
    (0.5, 1, None)
    """
    if isinstance(value, Batch):
        return value.input, value.target, value.weight
    if isinstance(value, (tuple, list)) and len(value) in (2, 3):
        return value[0], value[1], value[2] if len(value) == 3 else None
    raise InvalidArgument(
        f"{what} must be an (input, target) pair, an (input, target, weight) triple or a Batch, got "
        f"{_describe(value)}{hint}{foreign.way_in(value)}"
    )


def check_weight(weight: Any, what: str) -> None:
    """Raise unless these are weights: a tensor (n, ...) of finite numbers of at least 0, or of booleans; or None.

    Values are looked at where that waits for nothing: on the CPU, while nothing is traced or transformed. Elsewhere
    (a batch that is on a GPU already, weights that compiled code makes) they are taken as they are.

    >>> check_weight(torch.tensor([0.5, -1.0]), "the weights of the dataset")
    Traceback (most recent call last):
        ...
    functrain.errors.InvalidArgument: the weights of the dataset must be finite and at least 0, got -1
    """
    if weight is None or not _is_weight(weight, what) or weight.numel() == 0:
        return
    if weight.dtype != torch.bool and weight.device.type == "cpu" and is_plain():
        lowest, highest = torch.aminmax(weight.detach() if weight.requires_grad else weight)
        low, high = lowest.item(), highest.item()
        if not (low >= 0 and high < float("inf")):
            raise InvalidArgument(f"{what} must be finite and at least 0, got {high if low >= 0 else low:g}")


def _is_weight(weight: Any, what: str) -> bool:
    if not isinstance(weight, Tensor):
        raise NotATensor(f"{what} must be a tensor of shape (n, ...) or None, got {_describe(weight)}")
    if weight.is_complex():
        raise DtypeMismatch(f"{what} must be real numbers or booleans, got {tree.describe(weight)}")
    return True


def first_tensor(part: Any) -> Any:
    """Return the first tensor of a tree that has rows, which says how many there are, and on which device.

    A scalar where there is none of these; None where there is no tensor.

    >>> first_tensor({"mask": None, "scale": torch.tensor(2.0), "tokens": torch.zeros(3, 2)}).shape[0]
    3
    """
    if isinstance(part, Tensor):
        return part
    tensors = [leaf for leaf in tree.leaves(part) if isinstance(leaf, Tensor)]
    return next((leaf for leaf in tensors if leaf.dim()), tensors[0] if tensors else None)


def _pad(weight: Tensor | None, padding: Tensor) -> Tensor:
    if weight is None:
        return padding
    # Not a product, whose dtype would be another one than that of batches without padding.
    return weight.masked_fill((padding == 0).reshape(-1, *[1] * (weight.dim() - 1)), 0)


def _describe(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, dict):
        return f"a dict with the keys {', '.join(map(repr, value))}"
    return tree.describe(value)


def _check(batch: Batch, what: str) -> None:
    # Shapes alone, a microsecond: this runs at each eager step, and under every transform.
    n = _rows(batch.input, what, "input")
    if n == 0:
        raise InvalidArgument(f"{what} has no rows; a batch needs at least one example")
    if not _is_none(batch.target):
        targets = _rows(batch.target, what, "target")
        if targets != n:
            raise ShapeMismatch(f"{what} has {n} rows of input and {targets} rows of target; each example needs both")
    weight = batch.weight
    if weight is not None and _is_weight(weight, f"{what}: weight") and weight.shape[:1] != (n,):
        raise ShapeMismatch(
            f"{what}: weight must have shape ({n},), one for a row, or ({n}, ...), one for an element; got "
            f"{tuple(weight.shape)}"
        )


def _is_none(target: Any) -> bool:
    if target is None or isinstance(target, Tensor):
        return target is None
    return all(leaf is None for leaf in tree.leaves(target))


def _rows(part: Any, what: str, name: str) -> int:
    first = first_tensor(part)
    if first is None:
        record = attrs.has(type(part)) or dataclasses.is_dataclass(part)
        remedy = "make its class a node with tree.node, or pass a dict" if record else "convert it with torch.as_tensor"
        raise NotATensor(f"{what}: {name} holds no tensor, got {_describe(part)}; {remedy}")
    if first.dim() == 0:
        raise ShapeMismatch(f"{what}: {name} is a scalar; a batch has its examples along the first axis")
    return first.shape[0]
