"""A host event: each callback's handler in its turn, and what it may change."""

from collections.abc import Mapping
from typing import Any

import attrs
from torch import Tensor

from functrain import tree
from functrain.engine import Stop
from functrain.errors import InvalidCallbackResult
from functrain.train.events import (
    BY_PHASE,
    STEP_EVENTS,
    Callback,
    check_answer,
    check_changes,
    check_memory,
    naming,
    with_whole_parts,
)
from functrain.train.run import Run
from functrain.train.stepping.detaching import without_history
from functrain.train.stepping.lending import Lent, give_back, lend
from functrain.train.stop import Stopped, scope_of

MAY_REPLACE = frozenset(("state", "memory", "history", "logs", "tally", "logged", "row"))
"""What a handler may replace at any host event; the batch too at `begin_batch`."""

_WITH_ROW = ("after_validate", "after_epoch")
"""The events at which the logs are the row of the epoch."""

_OF_A_BATCH = {"begin_batch": 0, "after_batch": 1, "after_chunk": 1}
"""The events at which a stop is at a batch, and how many batches the cursor is past it."""


def emit(event: str, callbacks: tuple[Callback, ...], run: Run, resources: Mapping[str, Any] | None = None) -> Run:
    """Return the run after the handlers of a host event have answered, in order; the first stop ends the round.

    Those that have answered already, by the run's cursor, are not asked again.

    Args:
        event: one of `HOST_EVENTS`.
        callbacks: callbacks, already `in_order`.
        run: a `Run`; after a stop, its `stopped` says which.
        resources: what is live, by the callbacks' names.

    Raises:
        InvalidCallbackResult: a handler returned something else than a run, a `Stop` or None, changed what would be
            lost, or wrote to the run in place.
        InvalidMemory: a memory became what cannot be saved.

    >>> def halve(run):
    ...     return Stop(run, reason="enough") if run.logs["valid/loss"] < 0.1 else None
    >>> run = Run(state=None, logs={"valid/loss": 0.05})
    >>> emit("after_epoch", (Callback("enough", {"after_epoch": halve}),), run).stopped.scope
    'fit'
    """
    for index in range(run.cursor.answered, len(callbacks)):
        callback = callbacks[index]
        if not _hears(callback, event, run):
            continue
        run = _answer(callback, event, run, resources or {})
        run = tree.evolve(run, cursor=tree.evolve(run.cursor, answered=index + 1))
        if run.stopped is not None:
            break
    return run


def _hears(callback: Callback, event: str, run: Run) -> bool:
    kind = "train" if run.cursor.phase == "train" else "valid"
    return event in callback.handlers and (event not in BY_PHASE or kind in callback.phases)


def hears(callbacks: tuple[Callback, ...], event: str, run: Run) -> list[Callback]:
    """Return the callbacks that have yet to answer an event.

    >>> hears((Callback("a", {"after_fit": print}),), "after_fit", Run(state=None))[0].name
    'a'
    """
    return [callback for callback in callbacks[run.cursor.answered :] if _hears(callback, event, run)]


def _answer(callback: Callback, event: str, run: Run, resources: Mapping[str, Any]) -> Run:
    handler = callback.handlers[event]
    with naming(callback.name, event):
        lent = _lent(run, callback) if callback.keeps_state else None
        answer = handler(run) if callback.resource is None else handler(run, resources[callback.name])
        if lent is not None and (written := lent.writes()):
            raise InvalidCallbackResult(_changed_in_place(written, callback, event))
        if answer is None:
            return run
        stop = answer if isinstance(answer, Stop) else None
        after = check_answer(answer if stop is None else stop.carry, run, event, callback.name)
        after = _check(after, run, event, callback)
        if stop is None or not bool(stop.when):
            return after
        return tree.evolve(after, stopped=_stop_of(stop, event, callback.name, run))


def _lent(run: Run, callback: Callback) -> Lent:
    """Return what a handler looks at and must not write to: the state, its memory and the batch."""
    memory = {callback.name: run.memory.get(callback.name)}
    return lend({"state": run.state, "memory": memory, "batch": run.batch})


def _changed_in_place(written: list[str], callback: Callback, event: str) -> str:
    return (
        f"callback {callback.name!r}, event {event!r}: the handler wrote to {', '.join(written[:3])} of the run in "
        "place, and a run is a value; return attrs.evolve(run, ...) with tensors of its own, such as x.clone().add_(1)"
    )


def _stop_of(stop: Stop, event: str, name: str, run: Run) -> Stopped:
    cursor = run.cursor
    batch = cursor.batch - _OF_A_BATCH[event] if event in _OF_A_BATCH else None
    return Stopped(scope_of(stop, event, cursor.phase), stop.reason, name, event, cursor.epoch, cursor.phase, batch)


def _check(after: Run, before: Run, event: str, callback: Callback) -> Run:
    may = MAY_REPLACE | {"batch"} if event == "begin_batch" else MAY_REPLACE
    check_changes(after, before, may, event, callback.name)
    after = _of_its_own(with_whole_parts(after, before, event, callback.name), before)
    for name, memory in after.memory.items():
        if memory is not before.memory[name]:
            check_memory(memory, name)
    _check_row(after, before, event, callback)
    return after


def _of_its_own(after: Run, before: Run) -> Run:
    """Return the run with what a handler put there detached, and in other memory than the batch's, as after a step."""
    old, new = vars(before), vars(after)
    replaced = {name: without_history(new[name]) for name in MAY_REPLACE if new[name] is not old[name]}
    if before.batch is not None:
        replaced = {name: give_back(value, before.batch, old[name]) for name, value in replaced.items()}
    return tree.evolve(after, **replaced) if replaced else after


def _check_row(after: Run, before: Run, event: str, callback: Callback) -> None:
    """Raise where a handler puts into the row of an epoch what a history cannot show and a file cannot hold."""
    if event not in _WITH_ROW or after.logs is before.logs:
        return
    for name, value in after.logs.items():
        if not isinstance(name, str) or not (value is None or isinstance(value, bool | int | float | str | Tensor)):
            raise InvalidCallbackResult(
                f"callback {callback.name!r}, event {event!r}: logs are the epoch's row, numbers and strings by name, "
                f"and the handler put {name!r}: {tree.describe(value)} there"
            )


def emit_apart(
    event: str, callbacks: tuple[Callback, ...], run: Run, resources: Mapping[str, Any], copied: bool
) -> Run:
    """Return the run after an event, with the live state kept apart from handlers that may keep theirs.

    Args:
        event: the event.
        callbacks: the callbacks.
        run: the run.
        resources: what is live.
        copied: whether the memory of the state is reused by the next step, so that whoever keeps it needs a copy.
    """
    if not copied or not any(callback.keeps_state for callback in hears(callbacks, event, run)):
        return emit(event, callbacks, run, resources)
    traced = {c.name for c in callbacks if c.handles(*STEP_EVENTS)}
    copies = Copies(traced, run)
    after = emit(event, callbacks, copies.run, resources)
    return copies.live(after)


class Copies:
    """A run with copies of what the next step overwrites, and the way back."""

    def __init__(self, traced: set[str], run: Run) -> None:
        self._before = run
        memory = {name: tree.clone(value) if name in traced else value for name, value in run.memory.items()}
        self.run = attrs.evolve(run, state=tree.clone(run.state), memory=memory, tally=tree.clone(run.tally))

    def live(self, after: Run) -> Run:
        """Return the run with its own memory back wherever the handlers left the copy, and with copies of the rest."""
        old, new = self._before, self.run
        memory = {name: self._choose(old.memory[name], new.memory[name], m) for name, m in after.memory.items()}
        state = self._choose(old.state, new.state, after.state)
        return attrs.evolve(after, state=state, memory=memory, tally=self._choose(old.tally, new.tally, after.tally))

    def _choose(self, live: Any, copy: Any, after: Any) -> Any:
        return live if after is copy else tree.clone(after)
