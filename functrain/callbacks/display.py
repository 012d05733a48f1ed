"""Callbacks that tell a person how training goes.

A bar, a line and a row may share a terminal or a pipe with each other and with what the script prints. Each line is
written whole and at once, what was printed before it comes before it, and on a terminal it goes above the bar.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from functrain.train.events import Callback
from functrain.train.history import show
from functrain.train.run import Run, batches_done


class _Rate(ProgressColumn):
    """Batches a second, over the last few seconds."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.0f} batches/s")


def progress(console: Console | None = None) -> Callback:
    """Return a callback that shows progress: on a terminal a bar with rate and time left, elsewhere a line an epoch.

    Beside `print_table` the bar prints no lines of its own. While there is a bar, what is printed to its terminal
    appears above it; what is printed elsewhere goes there.

    Args:
        console: the rich console to write to; the standard error output when None.

    >>> progress(Console(quiet=True)).name
    'progress'
    """
    out = Console(stderr=True) if console is None else console
    handlers, resource = _bar(out) if out.is_terminal else _lines(out)
    options: dict[str, Any] = dict(keeps_state=False, reads_logs=False, resource=resource)
    return Callback("progress", handlers, order=100, phases=("train", "valid"), **options)


def _line(run: Run) -> str:
    values = "  ".join(f"{name} {show(run.logs[name])}" for name in _columns(run))
    return f"epoch {run.epoch + 1}/{run.epochs}  {values}"


def _columns(run: Run) -> list[str]:
    return [name for name in run.logs if "/" in name]


def _lines(console: Console) -> tuple[dict[str, Any], Callable]:
    @contextmanager
    def clock(run: Run) -> Iterator[dict[str, float]]:
        yield {"began": time.perf_counter()}

    def begin_epoch(run: Run, clock: dict[str, float]) -> None:
        clock["began"] = time.perf_counter()

    def after_epoch(run: Run, clock: dict[str, float]) -> None:
        seconds = time.perf_counter() - clock["began"]
        _write(console, f"{_line(run)}  {seconds:.1f} s")

    return {"begin_epoch": begin_epoch, "after_epoch": after_epoch}, clock


def _bar(console: Console) -> tuple[dict[str, Any], Callable]:
    @contextmanager
    def bar(run: Run) -> Iterator[Progress]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        # What is piped somewhere is not to appear on the terminal of the bar instead.
        out, err = _is_terminal(sys.stdout), _is_terminal(sys.stderr)
        with Progress(*columns, console=console, redirect_stdout=out, redirect_stderr=err) as bar:
            bar.add_task("", total=run.plan.steps, completed=batches_done(run))
            yield bar

    def describe(bar: Progress, run: Run, more: str = "") -> None:
        bar.update(bar.task_ids[0], description=f"epoch {run.epoch + 1}/{run.epochs}{more}")

    def begin_epoch(run: Run, bar: Progress) -> None:
        describe(bar, run)

    def begin_validate(run: Run, bar: Progress) -> None:
        describe(bar, run, ", validating")

    def after_chunk(run: Run, bar: Progress) -> None:
        if run.phase == "train":
            bar.update(bar.task_ids[0], completed=batches_done(run))

    def after_epoch(run: Run, bar: Progress) -> None:
        if "print_table" not in run.plan.callbacks:
            _write(bar.console, _line(run))

    handlers = {
        "begin_epoch": begin_epoch,
        "after_chunk": after_chunk,
        "begin_validate": begin_validate,
        "after_epoch": after_epoch,
    }
    return handlers, bar


def print_table(columns: Iterable[str] | None = None, console: Console | None = None) -> Callback:
    """Return a callback that prints the history as a table, each row when its epoch is over.

    Args:
        columns: the columns to print; None for the epoch, the losses and the metrics.
        console: the rich console to print to; the standard output when None.

    >>> print_table(["epoch", "valid/loss"]).name
    'print_table'
    """
    chosen = None if columns is None else list(columns)

    def after_epoch(run: Run) -> None:
        names = ["epoch", *_columns(run)] if chosen is None else chosen
        widths = [max(len(name), 8) for name in names]
        if not run.history:
            _write(console, _align(names, widths))
        _write(console, _align([show(run.logs.get(name)) for name in names], widths))

    return Callback("print_table", {"after_epoch": after_epoch}, order=90, keeps_state=False)


def _align(cells: list[str], widths: list[int]) -> str:
    return "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))


def _is_terminal(stream: Any) -> bool:
    return hasattr(stream, "isatty") and stream.isatty()


def _write(console: Console | None, line: str) -> None:
    """Write a line to a console, or to the standard output, which a bar on the same terminal has taken over."""
    if console is None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
        return
    sys.stdout.flush()  # what was printed before, where both go into one pipe
    console.print(line, highlight=False, soft_wrap=True, markup=False, emoji=False)
