"""The table that is looked up."""

from typing import Any

import torch.nn.functional as F

from functrain import arguments, initializers
from functrain.dispatch_state import is_plain
from functrain.errors import LabelOutOfRange
from functrain.initializers import Initializer
from functrain.nn.formula import layer
from functrain.nn.model import Model
from functrain.nn.parameters import check_initializer
from functrain.nn.takes import indices


def embedding(num_embeddings: int, embedding_dim: int, weight: Initializer | None = None) -> Model:
    """Return the layer that looks up a row of its weight for each index, as `torch.nn.Embedding`.

    Its input is integers of any shape, its output has one more axis, of length `embedding_dim`. Its parameter is
    "weight", (num_embeddings, embedding_dim), in PyTorch's default dtype.

    Args:
        num_embeddings: the number of rows; indices are from 0 to num_embeddings - 1.
        embedding_dim: the length of a row.
        weight: the initializer of the weight; standard normal when None.

    Raises:
        InvalidArgument: an option is none of these.
        LabelOutOfRange: when applied, an index is no row. On an accelerator its own assertion reports it instead.
        DtypeMismatch, DeviceMismatch: when initialised or applied, the input does not fit.
        TreeMismatch: when applied, the parameters are of another model.

    >>> import torch
    >>> from functrain import random
    >>> table = embedding(65, 8)
    >>> tokens = torch.tensor([[0, 64, 1]])
    >>> params, buffers = table.init(random.key(0), tokens)
    >>> table.apply(params, buffers, tokens)[0].shape
    torch.Size([1, 3, 8])
    """
    shape = arguments.whole("num_embeddings", num_embeddings), arguments.whole("embedding_dim", embedding_dim)
    rows = initializers.normal() if weight is None else check_initializer("weight", weight)

    def apply(p, x):
        return F.embedding(x, p["weight"])

    return layer(
        f"embedding({num_embeddings}, {embedding_dim})", lambda x: {"weight": (shape, rows)}, apply, takes=_rows
    )


def _rows(label: str, x: Any, params: Any) -> None:
    indices(label, x)
    if params is None or not is_plain() or x.numel() == 0:
        return
    rows, (low, high) = params["weight"].shape[0], (int(bound) for bound in x.aminmax())
    if low < 0 or high >= rows:
        raise LabelOutOfRange(
            f"{label}: indices must be from 0 to {rows - 1}, got indices from {low} to {high}; take more rows, or "
            "number what is looked up from 0"
        )
