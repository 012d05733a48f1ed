"""A tree as a table to read: the leaves by dotted path, with dtype, shape and number of elements."""

from typing import Any

import attrs
from torch import Tensor

from functrain.records import reprs, showing
from functrain.tree.by_path import leaves_with_path
from functrain.tree.structures import Tree

MOST_ROWS = 40
_COLUMNS = "path", "leaf", "elements"


@attrs.frozen(repr=False)
class Table:
    """What `table` returns; it shows as a table, in a notebook too, and holds no tensor.

    Attributes:
        rows: (path, what it is, number of elements) of each leaf; the number is None where it is no tensor.
    """

    rows: tuple[tuple[str, str, int | None], ...]

    @property
    def total(self) -> str:
        """How many tensors and elements there are, in words."""
        counts = [count for _, _, count in self.rows if count is not None]
        return f"{len(counts)} tensor{'' if len(counts) == 1 else 's'}, {sum(counts):,} elements"

    def __repr__(self) -> str:
        lines = [_words(row) for row in self.rows[:MOST_ROWS]]
        text = showing.columns([_COLUMNS, *lines], right=(False, False, True))
        return "\n".join([text, *self._more(), self.total])

    def _repr_html_(self) -> str:
        end = "".join(f"<p>{line}</p>" for line in [*self._more(), self.total])
        return showing.html_table(_COLUMNS, [_words(row) for row in self.rows[:MOST_ROWS]]) + end

    def _more(self) -> list[str]:
        more = len(self.rows) - MOST_ROWS
        return [f"and {more} more"] if more > 0 else []


def _words(row: tuple[str, str, int | None]) -> tuple[str, str, str]:
    path, leaf, count = row
    return path, leaf, "" if count is None else f"{count:,}"


def table(tree: Tree) -> Table:
    """Return a tree as a table of its leaves, such as the parameters of a model.

    Args:
        tree: a tree; its tensors are only asked for their shapes.

    Returns:
        A `Table`, which shows as one in a terminal and in a notebook.

    See also: `nn.summary`, the table of a model's layers.

    >>> import torch
    >>> table({"0": {"weight": torch.zeros(50, 784), "bias": torch.zeros(50)}})
    path      leaf              elements
    0.weight  float32(50, 784)    39,200
    0.bias    float32(50,)            50
    2 tensors, 39,250 elements
    """
    return Table(tuple((path, reprs.short(leaf), _count(leaf)) for path, leaf in leaves_with_path(tree)))


def _count(leaf: Any) -> int | None:
    return leaf.numel() if isinstance(leaf, Tensor) else None
