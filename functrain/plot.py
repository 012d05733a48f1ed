"""Plots: the history of a fit, and schedules, as matplotlib figures.

Each function returns the `Figure` and shows nothing: a notebook displays it when it is the last value of a cell, and
`figure.savefig("history.png")` writes it. Matplotlib comes with `pip install functrain[plot]`; it is imported when
something is drawn, its global state and style are left alone.
"""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from functrain import arguments
from functrain.errors import InvalidArgument, MissingExtra
from functrain.schedule import Schedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "history",
    "schedule",
]


def __dir__() -> list[str]:
    return __all__


_Columns = dict[str, list[float | None]]


def history(
    source: Any,
    only: Iterable[str] | None = None,
    ax: "Axes | Sequence[Axes] | None" = None,
) -> "Figure":
    """Draw what a fit measured, in panels one below another.

    The losses share a panel, and so do the other metrics, training dashed and validation solid. Each other value, such
    as the learning rate, has a panel of its own; those that never changed share the last one.

    Args:
        source: a `Run` or its history, by epoch; or what `callbacks.record` recorded, by step: a mapping from
            names to values of one length, with their places under "step" or "epoch" (0, 1, 2... without either).
        only: the names of the columns to draw, shell patterns allowed (such as "*/loss"); None for all.
        ax: axes to draw in, as many as panels; None for a new figure.

    Returns:
        The figure.

    Raises:
        MissingExtra: matplotlib is not installed.
        InvalidArgument: the source is none of these, or has nothing to draw; its columns differ in length; a name of
            `only` matches no column; or there are more or fewer axes than panels.

    >>> rows = [{"epoch": 1, "train/loss": 0.5, "lr": 0.1}, {"epoch": 2, "train/loss": 0.3, "lr": 0.2}]
    >>> figure = history(rows)
    >>> [panel.get_ylabel() for panel in figure.axes]
    ['loss', 'lr']
    """
    columns = _columns(source)
    along = next((name for name in ("step", "epoch") if name in columns), None)
    length = len(next(iter(columns.values())))
    places = list(range(length)) if along is None else columns[along]
    drawn = _choose({name: ys for name, ys in columns.items() if name not in ("step", "epoch")}, only)
    panels = _panels(drawn)
    axes = _axes(ax, list(panels))
    colors = {base: f"C{i}" for i, base in enumerate(dict.fromkeys(_base(name) for name in drawn))}
    for axis, (label, names) in zip(axes, panels.items(), strict=True):
        for name in names:
            _line(axis, name, places, drawn[name], colors[_base(name)])
        axis.set_ylabel(label)
        axis.legend()
    axes[-1].set_xlabel(along or "row")
    return axes[0].figure


def schedule(
    schedules: Schedule | Mapping[str, Schedule],
    points: int = 201,
    ax: "Axes | None" = None,
) -> "Figure":
    """Draw schedules against the position, the fraction of training done.

    Schedules of `updates` are drawn against updates, and those of `epochs` against epochs.

    Args:
        schedules: a schedule, or schedules by name, all by position, by updates, or by epochs.
        points: the number of places at which each is evaluated, at least 2.
        ax: axes to draw in; None for a new figure.

    Returns:
        The figure.

    Raises:
        MissingExtra: matplotlib is not installed.
        InvalidArgument: something is no schedule, there is none, their clocks differ, or points is below 2.

    >>> from functrain.schedule import cosine, one_cycle
    >>> figure = schedule({"lr": one_cycle(0.3, 0.6, 0.2), "momentum": cosine(0.95, 0.85)})
    >>> [line.get_label() for line in figure.axes[0].lines]
    ['lr', 'momentum']
    """
    named = {"": schedules} if isinstance(schedules, Schedule) else schedules
    clock = _check_schedules(named)
    arguments.whole("points", points, 2)
    axis = _axes(ax, ["schedules"])[0]
    longest = max(one.length for one in named.values())
    positions = [i / (points - 1) for i in range(points)]
    for name, one in named.items():
        # By floats, one by one: a schedule made from a plain function may know nothing of tensors.
        held = [longest] if one.length < longest else []
        values = [float(one(p)) for p in positions + [1.0] * len(held)]
        axis.plot([p * one.length for p in positions] + held, values, label=name or None)
    axis.set_xlabel(clock)
    axis.set_ylabel("value")
    if not isinstance(schedules, Schedule):
        axis.legend()
    return axis.figure  # pyright: ignore[reportReturnType]


def _check_schedules(named: Any) -> str:
    """Return the one clock of the schedules."""
    if not isinstance(named, Mapping) or not named:
        raise InvalidArgument(f"schedules must be a Schedule, or a mapping from names to such, got {named!r}")
    for name, one in named.items():
        if not isinstance(one, Schedule):
            raise InvalidArgument(f"schedules[{name!r}] must be a Schedule, got {one!r}")
        if one.clock == "progress":
            raise InvalidArgument(f"{one!r} looks at several clocks, and a picture has one; draw its parts")
    clocks = {one.clock for one in named.values()}
    if len(clocks) > 1:
        raise InvalidArgument(
            f"the schedules must have one clock to share an axis, got {', '.join(sorted(clocks))}; draw them apart"
        )
    return clocks.pop()


def _columns(source: Any) -> _Columns:
    """Return the numbers of a history or a record by name, all of one length."""
    source = getattr(source, "history", source)
    if isinstance(source, Mapping):
        columns = {name: _numbers(values) for name, values in source.items()}
    else:
        rows = _rows(source)
        names = dict.fromkeys(name for row in rows for name in row)
        columns = {name: _numbers([row.get(name) for row in rows]) for name in names}
    numeric = {name: values for name, values in columns.items() if values is not None}
    if not any(numeric.values()):
        raise InvalidArgument("the history has nothing to draw; did the fit end before its first epoch?")
    lengths = {name: len(values) for name, values in numeric.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidArgument(f"the columns of a record must be of one length, got {lengths}")
    return numeric


def _rows(source: Any) -> list[Mapping[str, Any]]:
    rows: list[Any] = list(source) if isinstance(source, Iterable) and not isinstance(source, Tensor) else [source]
    if not all(isinstance(row, Mapping) for row in rows):
        raise InvalidArgument(
            "source must be a Run, a history, rows of values by name, or a record of values by name, "
            f"got {type(source).__name__}"
        )
    return rows


def _numbers(values: Any) -> list[float | None] | None:
    """Return a column as floats, None where there is no value; or None, where something in it is no number."""
    if isinstance(values, Tensor):
        values = values.detach().tolist()
    try:
        return [None if value is None else float(value) for value in values]
    except (TypeError, ValueError):
        return None


def _choose(columns: _Columns, only: Iterable[str] | None) -> _Columns:
    if only is None:
        chosen = columns
    else:
        patterns = [only] if isinstance(only, str) else list(only)
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in columns):
                raise InvalidArgument(f"only: no column matches {pattern!r}; the columns are {', '.join(columns)}")
        chosen = {name: ys for name, ys in columns.items() if any(fnmatchcase(name, p) for p in patterns)}
    if not chosen:
        raise InvalidArgument("the history has nothing to draw but its steps")
    return chosen


def _base(name: str) -> str:
    return name.split("/", 1)[-1]


def _panels(columns: _Columns) -> dict[str, list[str]]:
    """Return the names of the columns of each panel, by the panel's label."""
    measured = [name for name in columns if "/" in name and _base(name) != "loss"]
    others = [name for name in columns if "/" not in name and name != "loss"]
    fixed = [name for name in others if len(set(columns[name])) == 1]
    panels = {
        "loss": [name for name in columns if _base(name) == "loss"],
        "metrics": measured,
        **{name: [name] for name in others if name not in fixed},
        "unchanged": fixed,
    }
    return {label: names for label, names in panels.items() if names}


def _line(axis: Any, name: str, places: Sequence[float | None], values: Sequence[float | None], color: str) -> None:
    # Rows without this value (validation every other epoch) are left out, so that the line goes on across them. NaN is
    # a value: it leaves a gap to see.
    points = [(x, y) for x, y in zip(places, values, strict=True) if y is not None]
    xs, ys = zip(*points, strict=True) if points else ((), ())
    style = "--" if name.startswith("train/") else "-"
    marker = "." if len(points) <= 50 else ""
    axis.plot(xs, ys, style, marker=marker, color=color, label=name)


def _axes(ax: Any, panels: list[str]) -> list[Any]:
    """Return the axes to draw the panels in: those given, or those of a new figure."""
    if ax is None:
        figure = _figure_class()(figsize=(6.4, 1.2 + 2.4 * len(panels)), layout="constrained")
        # Without it, a notebook shows the figure only where something has imported pyplot.
        figure._repr_png_ = partial(_png, figure)
        return list(figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0])
    several = list(ax.flat) if hasattr(ax, "flat") else list(ax) if isinstance(ax, Sequence) else [ax]
    if len(several) != len(panels):
        raise InvalidArgument(
            f"ax must be as many axes as panels, {len(panels)} ({', '.join(panels)}), got {len(several)}; "
            "choose fewer columns with only=, or pass more axes"
        )
    return several


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _figure_class() -> Callable[..., Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as missing:
        raise MissingExtra(
            "plots need matplotlib, which is not installed; run: pip install 'functrain[plot]'"
        ) from missing
    return Figure
