"""Callbacks that tell a person how training goes."""

import time
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from functrain.train.events import Callback
from functrain.train.history import show
from functrain.train.run import Run, remember


class _Rate(ProgressColumn):
    """Batches a second, over the last few seconds."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.0f} batches/s")


def progress(console: Console | None = None) -> Callback:
    """Return a callback that shows progress: on a terminal a bar with rate and time left, elsewhere a line an epoch.

    Args:
        console: the rich console to write to; the standard error output when None.

    >>> progress(Console(quiet=True)).name
    'progress'
    """
    out = Console(stderr=True) if console is None else console
    handlers = _bar(out) if out.is_terminal else _lines(out)
    return Callback("progress", handlers, order=100, phases=("train", "valid"), keeps_state=False, reads_logs=False)


def _lines(console: Console) -> dict[str, Any]:
    def begin_epoch(run: Run) -> Run:
        return remember(run, "progress", time.perf_counter())

    def after_epoch(run: Run) -> None:
        seconds = time.perf_counter() - run.memory["progress"]
        values = "  ".join(f"{name} {show(run.logs[name])}" for name in _measured(run))
        console.print(f"epoch {run.epoch + 1}/{run.epochs}  {values}  {seconds:.1f} s", highlight=False, soft_wrap=True)

    return {"begin_epoch": begin_epoch, "after_epoch": after_epoch}


def _measured(run: Run) -> list[str]:
    return [name for name in run.logs if name.startswith(("train/", "valid/"))]


def _bar(console: Console) -> dict[str, Any]:
    def begin_fit(run: Run) -> Run:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        bar = Progress(*columns, console=console)
        task = bar.add_task("", total=run.epochs * run.steps, completed=int(run.state.step - run.state.start))
        bar.start()
        return remember(run, "progress", (bar, task))

    def describe(run: Run, text: str) -> None:
        bar, task = run.memory["progress"]
        bar.update(task, description=text)

    def begin_epoch(run: Run) -> None:
        describe(run, f"epoch {run.epoch + 1}/{run.epochs}")

    def begin_validate(run: Run) -> None:
        describe(run, f"epoch {run.epoch + 1}/{run.epochs}, validating")

    def after_chunk(run: Run) -> None:
        if run.phase == "train":
            bar, task = run.memory["progress"]
            bar.update(task, completed=run.epoch * run.steps + run.step)

    def after_epoch(run: Run) -> None:
        bar, _ = run.memory["progress"]
        values = "  ".join(f"{name} {show(run.logs[name])}" for name in _measured(run))
        bar.console.print(f"epoch {run.epoch + 1}/{run.epochs}  {values}", highlight=False)

    def after_fit(run: Run) -> Run | None:
        if not run.memory["progress"]:  # the fit ended before it began
            return None
        run.memory["progress"][0].stop()
        return remember(run, "progress", ())

    return {
        "begin_fit": begin_fit,
        "begin_epoch": begin_epoch,
        "after_chunk": after_chunk,
        "begin_validate": begin_validate,
        "after_epoch": after_epoch,
        "after_fit": after_fit,
    }


def print_table(columns: Iterable[str] | None = None, console: Console | None = None) -> Callback:
    """Return a callback that prints the history as a table, each row when its epoch is over.

    Args:
        columns: the columns to print; None for the epoch, the losses and the metrics.
        console: the rich console to print to; the standard output when None.

    >>> print_table(["epoch", "valid/loss"]).name
    'print_table'
    """
    out = Console() if console is None else console
    chosen = None if columns is None else list(columns)

    def after_epoch(run: Run) -> None:
        names = ["epoch", *_measured(run)] if chosen is None else chosen
        widths = [max(len(name), 8) for name in names]
        if not run.history:
            _print_row(out, names, widths)
        _print_row(out, [show(run.logs.get(name)) for name in names], widths)

    return Callback("print_table", {"after_epoch": after_epoch}, order=90, keeps_state=False)


def _print_row(console: Console, cells: list[str], widths: list[int]) -> None:
    line = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    console.print(line, highlight=False, soft_wrap=True, markup=False)
