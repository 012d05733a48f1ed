"""One phase of an epoch: a fold over the chunks of its batches, from any batch and event on."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any

import attrs
import torch

from functrain import tree
from functrain.train.events import Callback, naming
from functrain.train.looping.chunks import Carry, Chunk, Feed, Partly, enter
from functrain.train.looping.emitting import emit_apart
from functrain.train.looping.interruption import Interruption, carry_run, is_lost
from functrain.train.looping.rebuilding import Past, copy_batch, traced_names
from functrain.train.run import Cursor, Run, steps_of
from functrain.train.stepping.lending import is_opaque
from functrain.train.stop import join_stops, within
from functrain.train.tally import merge_logs


@attrs.frozen
class Phase:
    """How one phase is run: the same for fit and for a loop of one's own.

    Attributes:
        feed: how its batches reach the step.
        begin: device -> the tally before any batch.
        settled: the tally with nothing waiting, for a compiled step.
        values: run -> what the phase has measured, by name.
    """

    feed: Feed
    begin: Callable[[torch.device], Any]
    settled: Callable[[Any], Any]
    values: Callable[[Run], dict[str, Any]]


@attrs.frozen
class Task:
    """What stays the same throughout a run.

    Attributes:
        callbacks: the callbacks, ordered.
        phases: how each phase is run, by name: "train", then the validations.
        passed: (state, batches) -> the state after batches that were left out.
        row: state before an epoch -> what joins its row: the schedules' values, as the first step uses them.
        device: where the state is.
    """

    callbacks: tuple[Callback, ...]
    phases: Mapping[str, Phase]
    passed: Callable[[Any, int], Any]
    row: Callable[[Any], dict[str, float]]
    device: torch.device

    @property
    def validations(self) -> list[str]:
        """The names of the validations, in order."""
        return [name for name in self.phases if name != "train"]


@attrs.frozen
class Live:
    """What is live while a loop runs, and never in the run.

    Attributes:
        interruption: what holds Ctrl-C back.
        resources: the callbacks' resources, by name.
        past: how to make again what a failed call has overwritten.
    """

    interruption: Interruption
    resources: Mapping[str, Any]
    past: Past = attrs.field(factory=lambda: Past(()))


def tell(task: Task, live: Live, event: str, run: Run) -> Run:
    """Return the run after a host event, with its cursor at that event."""
    if run.cursor.event != event:
        run = tree.evolve(run, cursor=tree.evolve(run.cursor, event=event, answered=0))
    donates = any(phase.feed.donates for phase in task.phases.values())
    return emit_apart(event, task.callbacks, run, live.resources, donates)


def at_boundary(task: Task, live: Live, run: Run) -> None:
    """Show the callbacks that want it a run from which the loop can go on; a stop is over first."""
    if run.stopped is not None and run.point is None:
        return
    for callback in task.callbacks:
        if callback.boundary is not None:
            with naming(callback.name, "boundary"):
                callback.boundary(run, *([] if callback.resource is None else [live.resources[callback.name]]))


def run_phase(task: Task, live: Live, run: Run) -> Run:
    """Return the run after the rest of its phase, or at a stop."""
    phase, cursor = task.phases[run.cursor.phase], run.cursor
    if cursor.batch == 0 and cursor.event == "begin_batch" and cursor.answered == 0:
        run = tree.evolve(run, tally=phase.begin(task.device), logged={})
        live.past.begins(run.tally, partial(phase.begin, task.device))
    run = _after_the_step(task, live, run)  # what was left of the last chunk, where a run goes on
    if run.stopped is None:
        run = _fold_over_chunks(task, live, phase, run)
    return run


def _fold_over_chunks(task: Task, live: Live, phase: Phase, run: Run) -> Run:
    chunks, failed = _chunks(phase.feed, run), None
    try:
        while run.stopped is None and failed is None and (chunk := next(chunks, None)) is not None:
            run = _with_batch(task, run, chunk)  # bound first, as it is lost where a handler raises otherwise
            run = _begin_batch(task, live, run, chunk)
            if run.stopped is None and run.cursor.event == "step":
                if phase.feed.donates:  # in plain Python the old state stays, and a dataset may hang in the call
                    _note_call(task, live, phase, run, chunk)
                    live.interruption.hold()
                run, failed = _advance(task, phase, live.past, run, chunk)
                if phase.feed.donates:
                    live.past.after(run)
                if failed is not None and run.cursor.event == "step":
                    raise failed
                live.interruption.release()
            run = _after_the_step(task, live, run)  # of the batches before the one that failed
            at_boundary(task, live, run)
        if failed is not None and run.stopped is None:
            run = _at(run, "step")
            raise failed
        live.interruption.hold()  # until the loop has bound the run
        return _to_fetch_anew(phase, run)
    except BaseException as error:
        live.interruption.holding = False
        carry_run(error, _to_fetch_anew(phase, _whole(live.past, run, error)), task)
        raise


def _chunks(feed: Feed, run: Run) -> Iterator[Chunk]:
    """Return the chunks from where the run stands; a batch under way comes first, where its source cannot give it."""
    cursor, start, stop = run.cursor, run.cursor.batch, steps_of(run.plan, run.cursor)
    if run.batch is None or feed.source.begins_anywhere or cursor.event not in ("begin_batch", "step"):
        return feed.chunks(run.key, cursor.epoch, start, stop)
    return chain([feed.chunk_of(run.batch)], feed.chunks(run.key, cursor.epoch, start + 1, stop))


def _to_fetch_anew(phase: Phase, run: Run) -> Run:
    """Return the run without the batch under way that nobody has looked at, where the source gives it again.

    So who has mended the data that a step failed at, or stopped at, goes on with what they are now. A batch that stays
    has memory of its own, which the source does not fill with the next one.
    """
    feed = phase.feed
    if run.batch is None:
        return run
    looked_at = feed.shown if run.cursor.event == "step" else run.cursor.answered > 0
    if looked_at or run.cursor.event not in ("begin_batch", "step") or not feed.source.begins_anywhere:
        return tree.evolve(run, batch=copy_batch(run.batch)) if feed.source.may_refill else run
    return tree.evolve(run, batch=None)


def _whole(past: Past, run: Run, error: BaseException) -> Run:
    """Return the run, or the copy from some batches before where Ctrl-C has come a second time, and cannot wait."""
    if past.start is None or not is_lost(run):
        return run
    error.add_note(f"the state was being overwritten; error.run is a copy from batch {past.start.step}")
    return past.start


def _note_call(task: Task, live: Live, phase: Phase, run: Run, chunk: Chunk) -> None:
    """Note a call that overwrites the state of a run.

    An accelerator's memory is dear, and its kernels fail when nothing on it can be read any more.
    """
    if task.device.type != "cpu":
        return
    inputs = _inputs(run, chunk)
    if phase.feed.source.may_refill:
        if any(is_opaque(leaf) for leaf in tree.leaves(inputs)):
            live.past.forget()
        inputs = tuple(map(copy_batch, inputs))
    live.past.before(run, _call(phase.feed, chunk), inputs)


def _with_batch(task: Task, run: Run, chunk: Chunk) -> Run:
    """Return the run with its batch: that of the chunk, or the one under way, which a handler may have replaced."""
    if chunk.batch is None or run.batch is not None:
        return run
    return tree.evolve(run, batch=_to_show(task, run, chunk.batch))


def _begin_batch(task: Task, live: Live, run: Run, chunk: Chunk) -> Run:
    """Return the run ready for the step; a stop of the batch alone has taken it out."""
    if chunk.batch is None:
        return _at(run, "step")
    if run.cursor.event == "begin_batch":
        run = tree.evolve(run, logs={})
        run = tell(task, live, "begin_batch", run)
        if run.stopped is None:
            run = _at(run, "step")
        elif run.stopped.scope == "batch":
            state = task.passed(run.state, 1) if run.phase == "train" else run.state
            run = _at(tree.evolve(run, stopped=None, state=state), "after_batch", 1)
    return run


def _to_show(task: Task, run: Run, batch: Any) -> Any:
    """Return a batch for handlers that may keep it, which its source must not fill with the next one then."""
    keeping = any(c.keeps_state and c.handles("begin_batch", "after_batch") for c in task.callbacks)
    return copy_batch(batch) if keeping and task.phases[run.phase].feed.source.may_refill else batch


def _at(run: Run, event: str, done: int = 0) -> Run:
    cursor = run.cursor
    return tree.evolve(run, cursor=Cursor(cursor.epoch, cursor.phase, cursor.batch + done, event))


def _advance(task: Task, phase: Phase, past: Past, run: Run, chunk: Chunk) -> tuple[Run, Exception | None]:
    """Return the run after the steps of a chunk; this is where training happens.

    Where a step raises, that is returned too, with the run after the steps before it.
    """
    feed, inputs = phase.feed, _inputs(run, chunk)
    try:
        carry, logs = _call(feed, chunk)(_carry(task, phase, run), *inputs)
    except Partly as partly:
        return _with_carry(run, partly.carry, partly.logs, partly.done), partly.error
    except Exception as error:
        failed = error
    else:
        return _count(feed, run, chunk, carry, logs), None
    return _before_the_failure(task, phase, past, run, chunk, failed)


def _count(feed: Feed, run: Run, chunk: Chunk, carry: Carry, logs: Any) -> Run:
    """Return the run after a chunk, or at the stop that a step has reported."""
    number = int(carry.stop) if feed.stops.end_more_than_a_batch() else 0
    done = int(carry.done) if number else chunk.size
    run = _with_carry(run, carry, logs, done)
    if chunk.short and feed.note and feed.note not in run.notes:
        run = tree.evolve(run, notes=(*run.notes, feed.note))
    return _stop_at(run, feed, number, done) if number else run


def _call(feed: Feed, chunk: Chunk) -> Callable[..., tuple[Carry, Any]]:
    return feed.short if chunk.short else feed.execute


def _inputs(run: Run, chunk: Chunk) -> tuple:
    return chunk.inputs if chunk.batch is None else (run.batch,)


def _carry(task: Task, phase: Phase, run: Run) -> Carry:
    traced = {name: run.memory[name] for name in traced_names(task.callbacks)}
    tally = run.tally if phase.feed.plain else phase.settled(run.tally)
    return enter(run.state, traced, tally, task.device)


def _before_the_failure(
    task: Task, phase: Phase, past: Past, run: Run, chunk: Chunk, error: Exception
) -> tuple[Run, Exception]:
    """Return the run before the batch of a chunk that fails, and what that says by itself, in words of its own."""
    feed, lost = phase.feed, is_lost(run)
    run = past.rebuild(run, phase.settled, task.device)
    if feed.plain or is_lost(run) or not (lost or chunk.size > 1):
        return run, error
    try:
        feed.again(_carry(task, phase, run), *_inputs(run, chunk))
    except Partly as partly:
        return (_with_carry(run, partly.carry, partly.logs, partly.done) if feed.exact else run), partly.error
    except Exception as alone:
        return run, error if str(alone) == str(error) else alone
    return run, error  # it does not come a second time


def _with_carry(run: Run, carry: Carry, logs: Any, done: int) -> Run:
    state = carry.state if run.phase == "train" else run.state  # the same, and known to be
    run = tree.evolve(run, state=state, memory={**run.memory, **carry.memory}, tally=carry.tally)
    return _at(_with_logs(run, logs, done), "after_batch", done)


def _stop_at(run: Run, feed: Feed, number: int, done: int) -> Run:
    said = feed.stops.of(number)
    where = {"epoch": run.epoch, "phase": run.phase}
    where["batch"] = run.cursor.batch - (said.event in ("after_step", "step"))
    also = None if said.also is None else attrs.evolve(said.also, **where)
    return tree.evolve(run if done else _at(run, "step"), stopped=attrs.evolve(said, **where, also=also))


def _with_logs(run: Run, logs: Any, done: int) -> Run:
    """Return the run with the logs of its chunk: what handlers look at, and what the loop merges."""
    if logs is None or not done:
        return tree.evolve(run, logs={})
    logs = tree.map(lambda rows: rows[:done], logs)
    logged = run.logged
    if logs["merged"]:
        logged = merge_logs(logged, logs["merged"], logs["weight"])
    return tree.evolve(run, logs=logs["shown"], logged=logged)


def _after_the_step(task: Task, live: Live, run: Run) -> Run:
    """Return the run after the events that follow a chunk; what is done is told of before a stop takes effect."""
    if run.cursor.event not in ("after_batch", "after_chunk"):
        return run
    stopped, run = run.stopped, tree.evolve(run, stopped=None)
    if run.cursor.event == "after_batch":
        run = _tell(task, live, "after_batch", run) if run.batch is not None else run
    if run.stopped is None or not run.stopped.ends_fit:
        ended, run = run.stopped, tree.evolve(run, stopped=None)
        run = _tell(task, live, "after_chunk", run)
        stopped = join_stops(stopped, ended)
    if run.stopped is None:
        run = _at(tree.evolve(run, batch=None, logs={}), "begin_batch")
    return tree.evolve(run, stopped=join_stops(stopped, run.stopped))


def _tell(task: Task, live: Live, event: str, run: Run) -> Run:
    return within(("batch",), tell(task, live, event, run))
