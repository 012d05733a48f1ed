"""Copies that PyTorch makes views: a trace may use one as long as nobody could tell."""

from typing import Any

import attrs
from torch import Tensor

from functrain.engine.tracing.refusals import Refused


@attrs.define
class Row:
    """A row of a tensor.

    Attributes:
        source: the memory of the tensor.
        index: which row it is.
        is_old: whether that memory was written to since.
        is_ahead: whether the row was written to, and that memory was not.
    """

    source: int | None
    index: tuple
    is_old: bool = False
    is_ahead: bool = False


@attrs.define
class CopiedRows:
    """The rows of a trace that are views in PyTorch, by their memory."""

    rows: dict[int | None, Row] = attrs.field(factory=dict)

    def add(self, row: int | None, source: int | None, index: tuple) -> None:
        """Enter a row; a row of a row belongs to the same tensor, and is never put back."""
        outer = self.rows.get(source)
        self.rows[row] = Row(source, index) if outer is None else Row(outer.source, ())

    def note_write(self, memory: int | None) -> None:
        """Note a write to a tensor or to a row."""
        written = self.rows.get(memory)
        if written is not None:
            written.is_ahead, memory = True, written.source
        for row in self.rows.values():
            row.is_old |= row.source == memory and row is not written

    def put_back(self, row: int | None, source: int | None, index: tuple) -> None:
        """Note that a row is being written to where it comes from, as `x[k] += 1` does last."""
        copy = self.rows.get(row)
        if copy is not None and copy.source == source and _same(copy.index, index):
            copy.is_ahead = False

    def check_read(self, memory: int | None) -> None:
        """Refuse to read a row that is behind its tensor, or a tensor that is behind a row."""
        row = self.rows.get(memory)
        if (row is not None and row.is_old) or any(r.is_ahead and r.source == memory for r in self.rows.values()):
            raise Refused("row")


def _same(index: tuple, other: tuple) -> bool:
    if len(index) != len(other):
        return False
    return all(a is b or (not _any_tensor(a, b) and a == b) for a, b in zip(index, other, strict=True))


def _any_tensor(*parts: Any) -> bool:
    return any(isinstance(part, Tensor) for part in parts)


def index_of(parts: Any) -> tuple:
    """Return an index as a tuple.

    >>> index_of(3)
    (3,)
    """
    return parts if isinstance(parts, tuple) else (parts,)
