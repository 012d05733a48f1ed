"""The loop: a run goes from event to event, each time by a function from run to run, and nothing is changed in place.

    begin_fit
      begin_epoch, the training batches                        see `phase`
      begin_validate, the validation batches, after_validate   for each validation
      after_epoch
    after_fit

`PLACES` has a function for each event; it does what is next and moves the cursor on. Since the cursor is part of the
run, a run that stopped, failed or was saved goes on from wherever it stands.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import attrs

from functrain import tree
from functrain.train.interruption import Interruption, carry_run, interruptible
from functrain.train.phase import Live, Task, at_boundary, run_phase, tell
from functrain.train.run import Cursor, Run
from functrain.train.stop import left_of, unless_stopped, within
from functrain.train.tally import computed


def carry_out(task: Task, run: Run) -> Run:
    """Return the run when its plan is carried out, or where it stopped; `after_fit` always runs.

    Whatever is raised carries the run as it stood at the last boundary, as `error.run`.
    """
    if run.finished:
        return run
    with ExitStack() as stack:
        try:
            resources = {c.name: stack.enter_context(c.resource(run)) for c in task.callbacks if c.resource is not None}
            with interruptible() as interruption:
                live = Live(interruption, resources)
                run = _from_place_to_place(task, live, run)
        except BaseException as error:
            inner = getattr(error, "run", None) or getattr(error.__context__, "run", None)
            run = inner or run
            carry_run(error, run)
            _after_failure(task, run, error, locals().get("resources", {}))
            raise
        try:
            return _after_fit(task, live, run)
        except BaseException as error:
            carry_run(error, run)
            raise


def _from_place_to_place(task: Task, live: Live, run: Run) -> Run:
    try:
        while (run.stopped is None or run.stopped.scope != "fit") and run.cursor.event != "after_fit":
            run = PLACES[run.cursor.event](task, live, run)
            live.interruption.release()
            if run.cursor.event != "after_fit":  # what is saved after it is the result
                at_boundary(task, live, run)
        live.interruption.hold()  # until the caller has bound the run
        return run
    except BaseException as error:
        live.interruption.holding = False
        carry_run(error, run)
        raise


def _after_fit(task: Task, live: Live, run: Run) -> Run:
    """Return the result: what `after_fit` makes of the run, which keeps where it stood as the point to go on from."""
    history = run.history + run.logs if run.cursor.event == "after_epoch" else run.history  # stopped at its end
    cursor = attrs.evolve(run.cursor, event="after_fit", answered=0)
    begun = attrs.evolve(run, stopped=None, history=history, batch=None, cursor=cursor)
    after = tell(task, live, "after_fit", begun)
    result = attrs.evolve(
        after, stopped=run.stopped, cursor=run.cursor, point=attrs.evolve(run, stopped=left_of(run.stopped))
    )
    at_boundary(task, live, result)
    return result


def _after_failure(task: Task, run: Run, error: BaseException, resources: dict[str, Any]) -> None:
    """Let every callback end what it began; what one raises meanwhile must not hide what happened first."""
    at = f"raised in epoch {run.epoch + 1} of {run.epochs}, phase {run.phase!r}, batch {run.step}"
    error.add_note(f"{at}; error.run is the run up to there")
    cursor = attrs.evolve(run.cursor, event="after_fit", answered=0)
    for callback in task.callbacks:
        if callback.resource is not None and callback.name not in resources:
            continue
        try:
            alone = attrs.evolve(task, callbacks=(callback,))
            tell(alone, Live(Interruption(), resources), "after_fit", attrs.evolve(run, stopped=None, cursor=cursor))
        except Exception as another:
            error.add_note(f"then after_fit of callback {callback.name!r} raised {type(another).__name__}: {another}")


# What is next, by event. A stop of the fit leaves the cursor where it was signalled.


def _next(run: Run, event: str, phase: str = "train", epoch: int | None = None) -> Run:
    return tree.evolve(run, cursor=Cursor(run.epoch if epoch is None else epoch, phase, 0, event), batch=None)


def _begin_fit(task: Task, live: Live, run: Run) -> Run:
    run = within(("batch", "epoch"), tell(task, live, "begin_fit", run))
    return unless_stopped(lambda run: _next(run, "begin_epoch"))(run)


def _begin_epoch(task: Task, live: Live, run: Run) -> Run:
    if run.cursor.answered == 0:
        run = tree.evolve(run, row={"epoch": run.epoch + 1}, logs={})
    run = tell(task, live, "begin_epoch", run)
    if run.stopped is not None and run.stopped.scope == "epoch":
        return _after_training(task, run)
    return unless_stopped(lambda run: _next(run, "begin_batch"))(within(("batch",), run))


def _batches(task: Task, live: Live, run: Run) -> Run:
    """Return the run after the rest of a phase, with what it measured in the epoch's row."""
    run = run_phase(task, live, run)
    try:
        return _phase_over(task, run)
    except BaseException as error:  # the run before the phase is overwritten
        carry_run(error, run)
        raise


def _phase_over(task: Task, run: Run) -> Run:
    if run.stopped is not None and run.stopped.scope == "fit":
        return run
    values = {**task.phases[run.phase].values(run), **_floats(computed(run.logged))}
    run = tree.evolve(run, row={**run.row, **{f"{run.phase}/{name}": value for name, value in values.items()}})
    if run.phase == "train":
        return _after_training(task, run)
    run = tree.evolve(run, logs=run.row)
    if run.stopped is not None:  # the validation was ended
        return _after_validation(task, tree.evolve(run, stopped=None))
    return _next(run, "after_validate", run.phase)


def _floats(values: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _after_training(task: Task, run: Run) -> Run:
    """Return the run after the training half of its epoch; what a stop left out of it counts as done.

    So the position goes on with the epochs, and a resumed run finds the right batch.
    """
    if run.stopped is not None and (length := run.steps) is not None:
        done = run.cursor.batch if run.cursor.event != "begin_epoch" else 0
        run = tree.evolve(run, state=task.passed(run.state, length - done))
    run = tree.evolve(run, stopped=None, tally=(), logged={}, logs=run.row)
    return _next(run, "begin_validate", task.validations[0]) if task.validations else _next(run, "after_epoch")


def _begin_validate(task: Task, live: Live, run: Run) -> Run:
    run = tell(task, live, "begin_validate", run)
    if run.stopped is not None and run.stopped.scope in ("validate", "epoch"):
        return _after_validation(task, tree.evolve(run, stopped=None))
    return unless_stopped(lambda run: _next(run, "begin_batch", run.phase))(within(("batch",), run))


def _after_validate(task: Task, live: Live, run: Run) -> Run:
    run = within(("batch", "epoch", "validate"), tell(task, live, "after_validate", run))
    return unless_stopped(lambda run: _after_validation(task, run))(run)


def _after_validation(task: Task, run: Run) -> Run:
    run = tree.evolve(run, row=run.logs, tally=(), logged={})
    later = task.validations[task.validations.index(run.phase) + 1 :]
    return _next(run, "begin_validate", later[0]) if later else _next(run, "after_epoch")


def _after_epoch(task: Task, live: Live, run: Run) -> Run:
    if run.cursor.answered == 0:
        run = tree.evolve(run, logs={**run.row, **task.row(run.state)})
    run = within(("batch", "epoch", "validate"), tell(task, live, "after_epoch", run))
    return unless_stopped(_end_epoch)(run)


def _end_epoch(run: Run) -> Run:
    run = tree.evolve(run, history=run.history + run.logs, row={})
    last = run.epoch + 1 == run.epochs
    return _next(run, "after_fit") if last else _next(run, "begin_epoch", epoch=run.epoch + 1)


PLACES: dict[str, Callable[[Task, Live, Run], Run]] = {
    "begin_fit": _begin_fit,
    "begin_epoch": _begin_epoch,
    "begin_batch": _batches,
    "step": _batches,
    "after_batch": _batches,
    "after_chunk": _batches,
    "begin_validate": _begin_validate,
    "after_validate": _after_validate,
    "after_epoch": _after_epoch,
}
