"""Weights: what has none is taken out of a batch before the first stage sees it."""

from typing import Any

import torch
from torch import Tensor

from functrain import tree
from functrain.data import Batch
from functrain.errors import ShapeMismatch


def without_influence(batch: Batch) -> Batch:
    """Return the batch in which what has zero weight cannot have any influence, whatever it held.

    Input and target of a row whose weights are all zero become those of the first row that counts (zeros where none
    does); the target of an element of zero weight that of the first element that counts. So a NaN there, or a label out
    of range, reaches no stage, and losses need not look at weights. Without weights the batch stays as it is.

    Raises:
        ShapeMismatch: the weights are of elements, and the target has not their axes.

    >>> nan = float("nan")
    >>> batch = Batch(torch.tensor([[1.0], [nan]]), torch.tensor([3, 9]), torch.tensor([1.0, 0.0]))
    >>> without_influence(batch).input.flatten().tolist(), without_influence(batch).target.tolist()
    ([1.0, 1.0], [3, 3])
    """
    weight = batch.weight
    if weight is None:
        return batch
    counts = weight != 0
    rows = counts if weight.dim() == 1 else counts.flatten(1).any(1)
    inputs = _replace(batch.input, rows)
    if weight.dim() == 1:
        return Batch(inputs, _replace(batch.target, rows), weight)
    _check_axes(batch.target, weight)
    return Batch(inputs, _replace(batch.target, counts), weight)


def row_weights(weight: Tensor | None) -> Tensor | None:
    """Return one weight a row: of weights of elements, whether any of a row's counts.

    >>> row_weights(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    tensor([1., 0.])
    """
    if weight is None or weight.dim() == 1:
        return weight
    return (weight != 0).flatten(1).any(1).to(weight.dtype)


def _check_axes(target: Any, weight: Tensor) -> None:
    for path, leaf in tree.leaves_with_path(target):
        if isinstance(leaf, Tensor) and leaf.shape[: weight.dim()] != weight.shape:
            where = f"target {path}" if path else "the target"
            raise ShapeMismatch(
                f"the batch's weight has shape {tuple(weight.shape)}, one for each element, and {where} has shape "
                f"{tuple(leaf.shape)}, which does not begin with it; give each row one weight, or the target those axes"
            )


def _replace(part: Any, counts: Tensor) -> Any:
    """Return the tree with what does not count replaced by the first that does, along the axes of `counts`."""
    axes = counts.dim()
    flat = counts.reshape(-1)
    first, any_counts = flat.to(torch.uint8).argmax().reshape(1), flat.any()

    def replaced(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or leaf.shape[:axes] != counts.shape:
            return leaf
        if leaf.is_sparse:
            return _replace_sparse(leaf, counts, first)
        one = leaf.flatten(0, axes - 1).index_select(0, first) if axes > 1 else leaf.index_select(0, first)
        like = torch.where(any_counts, one, torch.zeros_like(one)).reshape([1] * axes + list(leaf.shape[axes:]))
        return torch.where(counts.reshape(*counts.shape, *[1] * (leaf.dim() - axes)), leaf, like)

    return tree.map(replaced, part)


def _replace_sparse(leaf: Tensor, counts: Tensor, first: Tensor) -> Tensor:
    """Return the sparse tensor with the first row for those that do not count, and zeros where none does."""
    if counts.dim() > 1:
        raise ShapeMismatch(
            "the batch's weight has an entry for each element, and a part of the target is sparse, where not every "
            "element has one; convert it with to_dense()"
        )
    if not counts.any():
        return torch.zeros_like(leaf)
    rows = torch.arange(len(counts), device=counts.device)
    return leaf.index_select(0, torch.where(counts, rows, first))
