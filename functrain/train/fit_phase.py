"""The step of a learner, as a loop takes it: one phase of a fit."""

from collections.abc import Callable
from typing import Any

import torch

from functrain import data
from functrain.engine import Stop
from functrain.train.events import STEP_EVENTS, Callback
from functrain.train.learner import Learner, metrics_of
from functrain.train.looping.chunks import Advance, Carry, feed
from functrain.train.looping.compiling import identity, keep
from functrain.train.looping.phase import Phase
from functrain.train.looping.sources import Source
from functrain.train.run import Run
from functrain.train.stepping.detaching import without_history
from functrain.train.stepping.record import batch_values, begin, hyper_values
from functrain.train.stepping.step import eval_stages, train_stages
from functrain.train.stop import Stops
from functrain.train.tally import Tally, measured_by, sum_up, without


def phase_of(
    learner: Learner,
    one: Source,
    kind: str,
    callbacks: tuple[Callback, ...],
    jit: str | bool,
    chunk: int,
    compile_shapes: str = "first",
    donate: bool = False,
) -> Phase:
    """Return how a phase of a fit is run, "train" or "valid"; `donate` says whether it reuses the state's memory."""
    listening = [c for c in callbacks if kind in c.phases]
    wants_logs = any(c.reads_logs and c.handles("after_batch", "after_chunk") for c in listening)
    shown = any(c.handles("begin_batch", "after_batch") for c in listening)
    inside = [(c, event) for c in listening for event in STEP_EVENTS if c.handles(event)]
    waits = not jit
    key = (kind, wants_logs, waits, tuple((c.name, event, identity(c.handlers[event])) for c, event in inside))

    def make() -> Advance:
        stops = Stops()
        return Advance(learner, key, _advancing(learner, callbacks, kind, stops, wants_logs, waits), stops)

    advance = keep(learner, key, make)
    metric = measured_by(metrics_of(learner, kind))

    def values(run: Run) -> dict[str, float]:
        measured = metric.compute(sum_up(metric, run.tally).added)
        return {name: float(value) for name, value in measured.items()}

    return Phase(
        feed(advance, one, donate, shown, jit, chunk, compile_shapes),
        begin=lambda device: Tally(metric.init(device)),
        settled=lambda tally: sum_up(metric, tally),
        values=values,
    )


def _advancing(
    learner: Learner, callbacks: tuple[Callback, ...], kind: str, stops: Stops, wants_logs: bool, waits: bool
) -> Callable[[Carry, data.Batch], Any]:
    """Return the pure function (carry, batch) -> (carry, logs), or `Stop(carry, logs, when=...)`, for a fold."""
    stages = (train_stages if kind == "train" else eval_stages)(learner, callbacks, stops)
    metric = measured_by(metrics_of(learner, kind))

    def advance(carry: Carry, batch: data.Batch) -> Any:
        done = stages(begin(learner, carry.state, batch, kind, carry.memory, carry.tally, metric, waits))
        state = done.state if kind == "train" else carry.state
        state, memory, added, logs = without_history((state, done.memory, done.tally, _logs(learner, done, wants_logs)))
        if done.halt is None or not stops.end_more_than_a_batch():
            return Carry(state, memory, added, carry.stop, carry.done), logs
        number = done.halt.number
        counted = carry.done + ((number == 0) | done.halt.done)
        return Stop(Carry(state, memory, added, number, counted), logs, when=number > 0)

    return advance


def _logs(learner: Learner, step: Any, wanted: bool) -> dict[str, Any] | None:
    if not (wanted or step.logged):
        return None
    shown = {**batch_values(step), **hyper_values(learner, step)} if wanted else {}
    weight = step.batch.weight
    rows = data.first_tensor(step.batch.input).shape[0]
    total = (
        torch.full_like(step.state.step, rows, dtype=torch.float64)
        if weight is None
        else weight.sum(dtype=torch.float64)
    )
    logged = step.logged
    if step.halt is not None:  # what a stopped batch has logged does not count
        out = step.halt.when & ~step.halt.kept
        total = torch.where(out, 0.0, total)
        logged = {name: without(log, out) for name, log in logged.items()}
    return {"shown": shown, "merged": logged, "weight": total}
