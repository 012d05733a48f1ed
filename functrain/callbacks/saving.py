"""Saving a run while it goes on, so that it can be gone on with."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from functrain import arguments, checkpoint
from functrain.callbacks.stopping import check_monitor
from functrain.checkpoint.folders import Inside, keep_newest
from functrain.checkpoint.holding import check_held
from functrain.errors import CannotSave, InvalidArgument
from functrain.train.events import Callback
from functrain.train.run import Run, batches_done


def save_checkpoints(
    folder: str | os.PathLike,
    every: int | str = "epoch",
    keep_last: int | None = 3,
    keep_best: int = 0,
    monitor: str = "valid/loss",
    mode: str = "min",
    name: str = "save_checkpoints",
) -> Callback:
    """Return a callback that saves the run into a folder as it goes on, and its result in the end.

    `fit(learner, checkpoint.latest(folder) or state, ...)` goes on with the newest, exactly, so that a script that is
    simply started again goes on where it was; where the plan was carried out, it returns the result.

    A thread writes a copy, while the training goes on; it waits only while the one before is not on the disk yet. What
    goes wrong there is raised between two batches, and `error.run` is the run up to there. The folder is held: another
    callback, or another process, that would save into it is refused, and where the folder is deleted or replaced
    meanwhile, the run saves into no other.

    Args:
        folder: the folder; it is made if it is not there, in a folder that is. A new run begins in an empty one.
        every: "epoch", or after how many training batches, at the end of the chunk that holds the last of them.
        keep_last: how many of the newest stay, at least 1; None for all.
        keep_best: how many of the best stay beside them; saved after each epoch alone.
        monitor: the column of the history by which the best are told, such as "valid/loss".
        mode: "min" when less is better, "max" when more is.
        name: the name of the callback.

    Raises:
        InvalidArgument: an argument is none of these.

    When the fit begins, it raises `CannotSave` where the folder is a file, cannot be written to, or is not for this
    run; `NotSavable` where something in the state is no data; `CorruptFile` or `NewerFormat` where a checkpoint in the
    folder cannot be read. After the first epoch, `InvalidArgument` where that did not measure what `keep_best` needs.

    >>> save_checkpoints("run", every=100, keep_last=2).name
    'save_checkpoints'
    """
    keeping = None if keep_last is None else _Keeping(keep_last, keep_best, monitor, mode)
    _check(every, keeping, keep_best)

    @contextmanager
    def saving(run: Run) -> Iterator[_Saving]:
        with checkpoint.hold(folder) as path, checkpoint.background() as writer:
            _check_folder(path, run)
            checkpoint.check_savable(run)
            if keep_best:
                check_monitor(run, monitor)
            yield _Saving(path, writer, batches_done(run))

    def save_if_due(run: Run, saving: _Saving) -> None:
        saving.writer.check()
        ended, done = run.point is not None, batches_done(run)
        if ended or _is_due(run, every, saving.done):
            check_held(saving.folder)
            if keep_best:
                _check_measured(run, monitor)
            then = None if keeping is None else partial(_tidy, keeping)
            saving.writer.add(saving.folder, run, info=_info(run, done), then=then)
        saving.done = done
        if ended:
            saving.writer.wait()

    def boundary(run: Run, saving: _Saving) -> None:
        try:
            save_if_due(run, saving)
        except CannotSave:
            check_held(saving.folder)  # which says why, where the folder is no more
            raise

    options: dict[str, Any] = dict(keeps_state=False, reads_logs=False, resource=saving, boundary=boundary)
    return Callback(name, {}, **options)


def _check_measured(run: Run, monitor: str) -> None:
    if run.history and monitor not in run.history.columns:
        raise InvalidArgument(
            f"monitor: {monitor!r}, by which the best checkpoints are told, was measured in no epoch of this run; its "
            f"history has {', '.join(run.history.columns)}"
        )


@attrs.frozen
class _Keeping:
    """Which checkpoints stay; see `checkpoint.keep`."""

    last: int
    best: int
    by: str
    mode: str


@attrs.define
class _Saving:
    """What is live while a run is saved: where, by what, and how many batches were done at the last boundary."""

    folder: Path
    writer: checkpoint.Background
    done: int


def _check(every: Any, keeping: _Keeping | None, keep_best: Any) -> None:
    if every != "epoch":
        if isinstance(every, str):
            raise InvalidArgument(f"every must be 'epoch' or a number of batches, got {every!r}")
        arguments.whole("every", every)
    arguments.whole("keep_best", keep_best, 0)
    if keeping is not None:
        arguments.whole("keep_last", keeping.last)
        arguments.one_of("mode", keeping.mode, ("min", "max"))
    if keep_best and (every != "epoch" or keeping is None):
        raise InvalidArgument("keep_best needs every='epoch', after which alone there is a value, and a keep_last")


def _check_folder(folder: Path, run: Run) -> None:
    begins = run.cursor.event == "begin_fit" and run.cursor.answered == 0
    if begins and checkpoint.entries(folder):
        raise CannotSave(
            f"cannot save into {folder}: it has checkpoints of another run, and this one begins; go on with "
            f"checkpoint.latest({str(folder)!r}), or choose another folder"
        )


def _is_due(run: Run, every: int | str, before: int) -> bool:
    if isinstance(every, int):
        return batches_done(run) // every > before // every
    return run.cursor.event == "begin_epoch" and run.cursor.epoch > 0


def _info(run: Run, done: int) -> dict[str, Any]:
    at_an_end = (
        run.history and run.cursor.batch == 0 and run.cursor.event in ("begin_epoch", "after_epoch", "after_fit")
    )
    row = run.history[-1] if at_an_end else {"epoch": run.epoch}
    numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
    return {"step": done, **numbers, **({} if run.stopped is None else {"stopped": str(run.stopped)})}


def _tidy(keeping: _Keeping, inside: Inside) -> None:
    if keeping.best and any(keeping.by in entry.info for entry in checkpoint.entries(inside.folder)):
        checkpoint.keep(inside.folder, keeping.last, keeping.best, keeping.by, keeping.mode)
    else:
        keep_newest(inside, keeping.last)
