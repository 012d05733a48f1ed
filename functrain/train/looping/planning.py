"""The run before its first event: its plan, and memory of its own; or a run that goes on, where it stands."""

from collections.abc import Iterable
from typing import Any

import attrs
from torch import Tensor

from functrain import arguments, tree
from functrain.errors import InvalidArgument, RunMismatch
from functrain.train.events import STEP_EVENTS, Callback
from functrain.train.looping.sources import Source
from functrain.train.run import Plan, Run
from functrain.train.stop import still_under_way


def make_plan(
    training: Source,
    validations: dict[str, Source],
    epochs: int | None,
    steps: int | None,
    callbacks: tuple[Callback, ...],
    run: Run | None = None,
) -> Plan:
    """Return the plan of a run from what a loop is given; that of the run to go on with, if it is the same.

    Raises:
        InvalidArgument: the numbers are none, or both or neither are given.
        RunMismatch: the run was begun with another plan.
    """
    for name, number in (("epochs", epochs), ("steps", steps)):
        if number is not None:
            arguments.whole(name, number)
    for name in validations:
        if "/" in name:
            raise InvalidArgument(
                f"valid: {name!r} cannot be the name of a validation: '/' stands between it and a metric's name"
            )
    lengths = {"train": training.length, **{name: one.length for name, one in validations.items()}}
    names = tuple(callback.name for callback in callbacks)
    if run is not None:
        return _check_same_plan(run.plan, epochs, steps, lengths, names)
    if (epochs is None) == (steps is None):
        raise InvalidArgument(f"pass epochs or steps, how long to train, and one alone; got {epochs!r} and {steps!r}")
    length = training.length
    if length is None:
        if steps is None:
            raise InvalidArgument("train has no length, so epochs of it are unknown; pass steps, the batches to take")
        return Plan(1, {**lengths, "train": steps}, steps, names)
    total = epochs * length if steps is None else steps  # pyright: ignore[reportOptionalOperand]
    return Plan(-(-total // length), lengths, total, names)


def _check_same_plan(
    plan: Plan, epochs: int | None, steps: int | None, lengths: dict[str, int | None], names: tuple[str, ...]
) -> Plan:
    if lengths["train"] is None:
        lengths = {**lengths, "train": plan.steps}
    terms = (
        ("epochs", plan.epochs if epochs is None else epochs, plan.epochs),
        ("steps", plan.steps if steps is None else steps, plan.steps),
        ("batches an epoch", lengths, dict(plan.lengths)),
        ("callbacks", list(names), list(plan.callbacks)),
    )
    for what, now, then in terms:
        if now != then:
            raise RunMismatch(
                f"the run to go on with was begun with {what} {then}, and now {what} {now} are passed; pass what it "
                "was begun with, or its state, run.state, to begin a new run"
            )
    return plan


def begin_run(
    state: Any, plan: Plan, key: Tensor, callbacks: tuple[Callback, ...], sources: Iterable[Source] = ()
) -> Run:
    """Return the run before its first event, or for a run, where it goes on; with memory of its own.

    The loop reuses the memory of what the step carries; the caller's state, run and callbacks keep theirs. What a
    source cannot promise to a run that goes on is said in its notes.
    """
    if isinstance(state, Run):
        run = own(state.point or state, callbacks)
        notes = (*run.notes, *(note for one in sources for note in _notes(run, one) if note not in run.notes))
        # Without a point, `after_fit` did not come to its end, and is what comes next.
        stopped = run.stopped if state.point is None else still_under_way(run.stopped)
        return attrs.evolve(run, stopped=stopped, notes=notes, point=None)
    memory = {callback.name: callback.memory for callback in callbacks}
    return own(Run(state, memory, plan=plan, key=key), callbacks)


BEFORE_BATCHES = ("begin_fit", "begin_epoch", "begin_validate")
AFTER_BATCHES = ("after_validate", "after_epoch", "after_fit")


def _notes(run: Run, one: Source) -> list[str]:
    """Return what there is to say of a source that cannot begin where the run stands."""
    cursor, names = run.cursor, list(run.plan.lengths)
    here = len(names) if cursor.event in ("after_epoch", "after_fit") else names.index(cursor.phase)
    inside = names.index(one.name) == here and cursor.event not in (*BEFORE_BATCHES, *AFTER_BATCHES)
    to_come = names.index(one.name) > here or (names.index(one.name) == here and cursor.event in BEFORE_BATCHES)
    if one.begins_anywhere:
        return []
    if inside and cursor.batch != run.steps:
        return [f"{one.name} is no Loader: the run went on with the batches that it gave next, not where it left off"]
    taken, wanted = run.epoch > 0 or not to_come, run.epoch + 1 < run.epochs or to_come
    if taken and wanted:
        return [f"{one.name} is no Loader: nobody but it knows whether it gave the batches of a run without the stop"]
    return []


def own(run: Run, callbacks: tuple[Callback, ...]) -> Run:
    """Return the run with memory of its own for all that the step carries.

    >>> own(Run(state=0), ()).state
    0
    """
    traced = {callback.name for callback in callbacks if callback.handles(*STEP_EVENTS)}
    memory = {name: _copy(value) if name in traced else value for name, value in run.memory.items()}
    return attrs.evolve(run, state=_copy(run.state), memory=memory, tally=_copy(run.tally))


def _copy(value: Any) -> Any:
    """Return a copy, without the autograd history of parameters, which would grow with each step."""
    return tree.map(lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, value)
