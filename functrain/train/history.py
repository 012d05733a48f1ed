"""The history of a fit: a table with one row an epoch."""

import io
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table


@attrs.frozen
class History:
    """Rows of values by column name, one an epoch. Iterate over rows, index by number or column, print as a table.

    >>> history = History(({"epoch": 1, "train/loss": 0.5}, {"epoch": 2, "train/loss": 0.25}))
    >>> history["train/loss"]
    [0.5, 0.25]
    >>> print(history)
     epoch  train/loss
         1      0.5000
         2      0.2500
    """

    rows: tuple[Mapping[str, Any], ...] = ()

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in the order in which they first appear."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.rows)

    def __getitem__(self, which: int | slice | str) -> Any:
        """Return a row by number, a `History` of rows by slice, or a column as a list by name."""
        if isinstance(which, slice):
            return History(self.rows[which])
        if isinstance(which, int):
            return self.rows[which]
        if which not in self.columns:
            raise KeyError(f"no column {which!r}; the columns are {', '.join(self.columns) or 'none yet'}")
        return [row.get(which) for row in self.rows]

    def __add__(self, other: "Mapping[str, Any] | History") -> "History":
        """Return the history with a row more, or with the rows of another one after its own."""
        more = other.rows if isinstance(other, History) else (dict(other),)
        return History((*self.rows, *more))

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=24 * max(len(self.columns), 4), color_system=None)
        console.print(table(self))
        lines = console.file.getvalue().rstrip("\n").split("\n")  # pyright: ignore[reportAttributeAccessIssue]
        return "\n".join(line.rstrip() for line in lines)


def table(history: History) -> Table:
    """Return the history as a rich table.

    >>> table(History(({"epoch": 1},))).row_count
    1
    """
    drawn = Table(box=None, pad_edge=True, padding=(0, 1))
    for name in history.columns:
        drawn.add_column(name, justify="right")
    for row in history.rows:
        drawn.add_row(*(show(row.get(name)) for name in history.columns))
    return drawn


def show(value: Any) -> str:
    """Return a value as the tables show it: four decimals, or four digits where those would hide it.

    >>> show(0.25), show(3), show(0.00001234), show(None)
    ('0.2500', '3', '1.234e-05', '')
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.3e}"
    return str(value)
