"""The history of a fit: a table with one row an epoch."""

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from rich.table import Table

from functrain import tree
from functrain.records import showing


@attrs.frozen(repr=False, eq=False)
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

    def __eq__(self, other: object) -> bool:
        """Return whether all rows are the same; NaN is equal to NaN."""
        if not isinstance(other, History):
            return NotImplemented
        return tree.equal([dict(row) for row in self.rows], [dict(row) for row in other.rows])

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return str(self) if self.rows else "no epoch is complete"

    def _repr_html_(self) -> str:
        if not self.rows:
            return f"<p>{self!r}</p>"
        rows = [[show(row.get(name)) for name in self.columns] for row in self.rows]
        return showing.html_table(self.columns, rows) + curve(self)

    def __str__(self) -> str:
        # Not by rich, which displays in a notebook by itself what it prints.
        words = [self.columns, *([show(row.get(name)) for name in self.columns] for row in self.rows)]
        text = showing.columns(words, right=[True] * len(self.columns))
        return "\n".join(f" {line}" for line in text.splitlines())


def curve(history: History) -> str:
    """Return the losses by epoch as a picture, SVG: training dashed, validation solid; "" where there is no loss.

    >>> rows = {"epoch": 1, "train/loss": 0.5}, {"epoch": 2, "train/loss": 0.25}
    >>> curve(History(rows))[:4], curve(History())
    ('<svg', '')
    """
    names = [name for name in history.columns if name.rpartition("/")[2] == "loss"]
    numbers = {name: _numbers(history, name) for name in names}
    return showing.curves(numbers, "epoch", dashed=[name for name in names if name.startswith("train/")])


def _numbers(history: History, name: str) -> list[tuple[float, float]]:
    pairs = ((row.get("epoch", k), row.get(name)) for k, row in enumerate(history.rows))
    return [(float(x), float(y)) for x, y in pairs if isinstance(x, int | float) and isinstance(y, int | float)]


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
