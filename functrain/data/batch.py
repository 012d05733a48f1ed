"""The batch: what one step of training or evaluation looks at."""

from typing import Any

from torch import Tensor

from functrain import tree
from functrain.errors import InvalidArgument, NotATensor, ShapeMismatch


@tree.node
class Batch:
    """Examples stacked along a first axis.

    Attributes:
        input: what the model takes: a tensor (n, ...), or a tree of such.
        target: what the loss compares with: a tensor (n, ...), or a tree of such.
        weight: the weight of each example, shape (n,), zero for padding; None when each counts once.

    >>> import torch
    >>> Batch(torch.zeros(4, 3), torch.zeros(4)).weight is None
    True
    """

    input: Any
    target: Any
    weight: Tensor | None = None


def as_batch(batch: Any) -> Batch:
    """Return a batch from what stands for one.

    Args:
        batch: a `Batch`, an (input, target) pair, or an (input, target, weight) triple; a tuple or a list.

    Returns:
        The `Batch`; the given one itself where it is one already.

    Raises:
        InvalidArgument: it is none of these, or it has no rows.
        NotATensor: the input or the target holds no tensor, or the weight is none.
        ShapeMismatch: input, target and weight have not the same number of rows.

    >>> import torch
    >>> as_batch((torch.zeros(2, 3), torch.tensor([0, 1]))).target
    tensor([0, 1])
    """
    if not isinstance(batch, Batch):
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            raise InvalidArgument(
                "a batch must be a Batch, an (input, target) pair or an (input, target, weight) triple, "
                f"got {_describe(batch)}"
            )
        batch = Batch(*batch)
    _check(batch)
    return batch


def _describe(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, dict):
        return f"a dict with the keys {', '.join(map(repr, value))}"
    return tree.describe(value)


def _check(batch: Batch) -> None:
    # Shapes alone, a microsecond: this runs at each eager step, and under every transform.
    n = _rows(batch.input, "input")
    if n == 0:
        raise InvalidArgument("the batch has no rows; a batch needs at least one example")
    targets = _rows(batch.target, "target")
    if targets != n:
        raise ShapeMismatch(f"the batch has {n} rows of input and {targets} rows of target; each example needs both")
    weight = batch.weight
    if weight is not None:
        if not isinstance(weight, Tensor):
            raise NotATensor(
                f"the batch's weight must be a tensor of shape ({n},) or None, got {tree.describe(weight)}"
            )
        if weight.dim() != 1 or weight.shape[0] != n:
            raise ShapeMismatch(f"the batch's weight must have shape ({n},), one for a row, got {tuple(weight.shape)}")


def _rows(part: Any, what: str) -> int:
    first = part if isinstance(part, Tensor) else next((x for x in tree.leaves(part) if isinstance(x, Tensor)), None)
    if first is None:
        raise NotATensor(f"the batch's {what} holds no tensor, got {_describe(part)}; convert it with torch.as_tensor")
    if first.dim() == 0:
        raise ShapeMismatch(f"the batch's {what} is a scalar; a batch has its examples along the first axis")
    return first.shape[0]
