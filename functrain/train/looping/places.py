"""The loop: a run goes from event to event, each time by a function from run to run, and nothing is changed in place.

    begin_fit
      begin_epoch, the training batches                        see `phase`
      begin_validate, the validation batches, after_validate   for each validation
      after_epoch
    after_fit

`PLACES` has a function for each event; it does what is next and moves the cursor on. Since the cursor is part of the
run, a run that stopped, failed or was saved goes on from wherever it stands.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import attrs

from functrain import tree
from functrain.errors import InvalidCallbackResult
from functrain.train.events import Callback, naming
from functrain.train.looping.interruption import Interruption, carry_run, interruptible, run_of
from functrain.train.looping.phase import Live, Task, at_boundary, run_phase, tell
from functrain.train.looping.rebuilding import Past
from functrain.train.run import Cursor, Run
from functrain.train.stop import still_under_way, unless_stopped, within
from functrain.train.tally import compute_logs


def carry_out(task: Task, run: Run) -> Run:
    """Return the run when its plan is carried out, or where it stopped; `after_fit` always runs.

    Whatever is raised carries the run as it stood at the last boundary, as `error.run`; what a resource raises when it
    is closed in the end, the result. A resource whose exit returns True swallows nothing: the error is raised again.
    """
    failure = None
    try:
        with ExitStack() as stack:
            try:
                run = _with_resources(task, stack, run)
            except BaseException as error:
                failure = error
                raise
    except BaseException as error:
        carry_run(error, run_of(failure, task) or run, task)
        raise
    if failure is None:
        return run
    failure.add_note(SWALLOWED)
    raise failure


SWALLOWED = (
    "the exit of a callback's resource returned True, which swallows an error; it is raised again, so that nobody "
    "takes the run for one that came to its end: return a Stop from a handler to end a fit"
)


def _with_resources(task: Task, stack: ExitStack, run: Run) -> Run:
    resources: dict[str, Any] = {}
    try:
        for callback in task.callbacks:
            if callback.resource is not None:
                with naming(callback.name, "resource"):
                    resources[callback.name] = stack.enter_context(_opened(callback, run))
        with interruptible() as interruption:
            run = _from_place_to_place(task, Live(interruption, resources, Past(task.callbacks)), run)
    except BaseException as error:
        run = run_of(error, task) or run_of(error.__context__, task) or run  # Ctrl-C came while it was raised
        carry_run(error, run, task)
        _after_failure(task, run, error, resources)
        raise
    try:
        return _after_fit(task, Live(Interruption(), resources), run)
    except BaseException as error:
        carry_run(error, run, task)
        raise


def _opened(callback: Callback, run: Run) -> Any:
    made = callback.resource(run)  # pyright: ignore[reportOptionalCall]
    if not (hasattr(type(made), "__enter__") and hasattr(type(made), "__exit__")):
        raise InvalidCallbackResult(
            f"callback {callback.name!r}: its resource must return a context manager, such as a generator with "
            f"@contextmanager makes, got {tree.describe(made)}"
        )
    return made


def _from_place_to_place(task: Task, live: Live, run: Run) -> Run:
    try:
        while (run.stopped is None or not run.stopped.ends_fit) and run.cursor.event != "after_fit":
            run = PLACES[run.cursor.event](task, live, run)
            live.interruption.release()
            if run.cursor.event != "after_fit":  # what is saved after it is the result
                at_boundary(task, live, run)
        live.interruption.hold()  # until the caller has bound the run
        return run
    except BaseException as error:
        live.interruption.holding = False
        carry_run(error, run, task)
        raise


def _after_fit(task: Task, live: Live, run: Run) -> Run:
    """Return the result: what `after_fit` makes of the run, which keeps where it stood as the point to go on from.

    What is raised meanwhile carries the run as it was before, so that going on with it asks every callback again.
    """
    history = run.history + run.logs if run.cursor.event == "after_epoch" else run.history  # stopped at its end
    after, asked = _at_the_end(attrs.evolve(run, history=history, batch=None)), 0
    try:
        for asked in range(1, len(task.callbacks) + 1):  # one by one, to know who is left when one raises
            after = tell(attrs.evolve(task, callbacks=task.callbacks[:asked]), live, "after_fit", after)
    except BaseException as error:
        _after_failure(attrs.evolve(task, callbacks=task.callbacks[asked:]), run, error, live.resources)
        raise
    result = attrs.evolve(after, stopped=run.stopped, cursor=run.cursor, point=_to_go_on_from(run))
    at_boundary(task, live, result)
    return result


def _to_go_on_from(run: Run) -> Run:
    return attrs.evolve(run, stopped=still_under_way(run.stopped))


def _at_the_end(run: Run) -> Run:
    """Return the run as the handlers of `after_fit` see it."""
    cursor = attrs.evolve(run.cursor, event="after_fit", answered=0)
    return attrs.evolve(run, stopped=None, cursor=cursor, point=_to_go_on_from(run))


def _after_failure(task: Task, run: Run, error: BaseException, resources: Mapping[str, Any]) -> None:
    """Let every callback end what it began; what one raises meanwhile must not hide what happened first."""
    at = f"raised in epoch {run.epoch + 1} of {run.epochs}, phase {run.phase!r}, batch {run.step}"
    error.add_note(f"{at}; error.run is the run up to there")
    for callback in task.callbacks:
        if callback.resource is not None and callback.name not in resources:
            continue
        try:
            alone = attrs.evolve(task, callbacks=(callback,))
            tell(alone, Live(Interruption(), resources), "after_fit", _at_the_end(run))
        except Exception as another:
            error.add_note(f"then after_fit of callback {callback.name!r} raised {type(another).__name__}: {another}")
        except BaseException as another:  # Ctrl-C once more
            carry_run(another, run, task)
            raise


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
    return unless_stopped(lambda run: _next(_with_schedules(task, run), "begin_batch"))(within(("batch",), run))


def _with_schedules(task: Task, run: Run) -> Run:
    """Return the run with what its epoch's first step uses in the row; after the step it is the next one's already."""
    return tree.evolve(run, row={**run.row, **task.row(run.state)})


def _batches(task: Task, live: Live, run: Run) -> Run:
    """Return the run after the rest of a phase, with what it measured in the epoch's row."""
    run = run_phase(task, live, run)
    try:
        return _phase_over(task, run)
    except BaseException as error:  # the run before the phase is overwritten
        carry_run(error, run, task)
        raise


def _phase_over(task: Task, run: Run) -> Run:
    if run.stopped is not None and run.stopped.ends_fit:
        return run
    values = {**task.phases[run.phase].values(run), **_floats(compute_logs(run.logged))}
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
        schedules = {name: run.row[name] for name in task.row(run.state) if name in run.row}  # the last columns
        others = {name: value for name, value in run.row.items() if name not in schedules}
        run = tree.evolve(run, logs={**others, **schedules})
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
