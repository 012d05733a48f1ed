"""Stops: what a handler may end, the one record of it, and how a stop inside a compiled step becomes a mask.

A traced handler cannot leave a compiled function, so its stop is a condition. The stages after it are computed all the
same, and `settle` then takes the state from before it. That is why a result never depends on how many steps are
compiled into one call.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import tree
from functrain.engine import Stop
from functrain.errors import InvalidArgument
from functrain.records import reprs
from functrain.train.tally import sum_up

SCOPES = ("batch", "epoch", "validate", "fit", "run")
"""What a `Stop` can end: the rest of this batch, of this epoch's training half, of this validation, of the fit; or the
run, which is finished then, where a fit that was stopped can be gone on with."""

USUAL_SCOPE = {
    **dict.fromkeys(("begin_step", "after_pred", "after_loss", "after_grads", "after_step"), "batch"),
    "begin_fit": "fit",
    "begin_epoch": "epoch",
    "begin_batch": "batch",
    "step": "fit",
    "after_batch": "batch",
    "after_chunk": "batch",
    "begin_validate": "validate",
    "after_validate": "validate",
    "after_epoch": "fit",
    "after_fit": "fit",
}
"""What a `Stop` without a scope ends, by the event that it answers; "step" is a step of one's own in `loop`."""


@attrs.frozen(repr=False)
class Stopped:
    """A stop: what it ends, why, and who said so where.

    Attributes:
        scope: one of `SCOPES`.
        reason: why, in words for a person.
        callback: the name of the callback; "step" for a step of one's own.
        event: the event that was answered.
        epoch: the epoch, from 0.
        phase: "train", or the name of the validation.
        batch: the batch of that phase, from 0; None between the batches.
        also: a smaller stop of the same batch, which takes effect when the run goes on; or None.

    >>> print(Stopped("fit", "enough", "mine", "after_batch", epoch=1, batch=4))
    fit stopped by 'mine' at after_batch, epoch 2, batch 4: enough
    """

    scope: str
    reason: str
    callback: str
    event: str
    epoch: int = 0
    phase: str = "train"
    batch: int | None = None
    also: "Stopped | None" = None

    __repr__ = reprs.record

    @property
    def ends_fit(self) -> bool:
        """Whether the fit returns, for now ("fit") or for good ("run")."""
        return self.scope in ("fit", "run")

    def __str__(self) -> str:
        phase = "" if self.phase == "train" else f", {self.phase}"
        where = f"epoch {self.epoch + 1}{phase}" + ("" if self.batch is None else f", batch {self.batch}")
        return f"{self.scope} stopped by {self.callback!r} at {self.event}, {where}: {self.reason or 'no reason given'}"


def scope_of(stop: Stop, event: str, phase: str = "train") -> str:
    """Return what a stop ends: its own scope, or the one that is usual for the event.

    Raises:
        InvalidArgument: it is no scope, or "validate" where no validation is under way.

    >>> scope_of(Stop(None), "begin_epoch")
    'epoch'
    """
    if stop.scope is None:
        return USUAL_SCOPE[event]
    if stop.scope == "validate" and phase == "train":
        raise InvalidArgument(
            f"a Stop at {event!r} of training cannot have scope='validate': no validation is under way; use 'epoch' to "
            "end the training half, or stop at begin_validate"
        )
    if stop.scope not in SCOPES:
        raise InvalidArgument(f"the scope of a Stop must be one of {', '.join(SCOPES)}, got {stop.scope!r}")
    return stop.scope


def join_stops(first: Stopped | None, second: Stopped | None) -> Stopped | None:
    """Return the stop of two at one batch that ends more, with the other one kept where that must not be lost.

    >>> epoch, fit = (Stopped(scope, "", "mine", "after_batch") for scope in ("epoch", "fit"))
    >>> join_stops(epoch, fit).scope, join_stops(epoch, fit).also == epoch, join_stops(epoch, None) == epoch
    ('fit', True, True)
    """
    if first is None or second is None:
        return first or second
    if second.ends_fit and (not first.ends_fit or second.scope == "run"):
        first, second = second, first
    smaller = [stop for stop in (first.also, second, second.also) if stop is not None and not stop.ends_fit]
    return attrs.evolve(first, also=smaller[0]) if first.ends_fit and smaller else first


def still_under_way(stopped: Stopped | None) -> Stopped | None:
    """Return the stop that is still under way when a run goes on: a stop of the fit is over.

    >>> still_under_way(Stopped("fit", "", "mine", "after_batch")) is None
    True
    """
    return stopped.also if stopped is not None and stopped.ends_fit else stopped


def unless_stopped(f: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function of (..., run) that leaves a run with a stop under way as it is.

    >>> from functrain.train.run import Run
    >>> run = Run(state=1, stopped=Stopped("fit", "", "mine", "begin_fit"))
    >>> unless_stopped(lambda run: 1 / 0)(run) is run
    True
    """

    @wraps(f)
    def guarded(*args: Any) -> Any:
        return f(*args) if args[-1].stopped is None else args[-1]

    return guarded


def within(scopes: tuple[str, ...], run: Any) -> Any:
    """Return the run without its stop, if that was to end one of these scopes, which is over now.

    >>> from functrain.train.run import Run
    >>> within(("batch",), Run(state=1, stopped=Stopped("batch", "", "mine", "begin_batch"))).stopped is None
    True
    """
    return tree.evolve(run, stopped=None) if run.stopped is not None and run.stopped.scope in scopes else run


MOST = 1 << 15
"""More stops than a learner's callbacks can signal; numbers of several stops are written to this base."""


@attrs.frozen
class Stops:
    """The numbers by which compiled steps report stops: entry i of the table is number i + 1, and 0 is no stop.

    The table grows when a handler is traced, because only then is it clear which stops it may signal; the same stop
    always gets the same number.
    """

    table: list[Stopped] = attrs.field(factory=list)

    def number(self, stopped: Stopped) -> int:
        """Return the number of a stop, a new one when it is new.

        >>> Stops().number(Stopped("fit", "loss is nan", "finite", "after_loss"))
        1
        """
        if stopped not in self.table:
            self.table.append(stopped)
        return self.table.index(stopped) + 1

    def of(self, number: int) -> Stopped:
        """Return the stop of a number that a compiled step reported, which may hold several, see `_first`.

        >>> stops = Stops()
        >>> stops.of(stops.number(Stopped("fit", "enough", "mine", "after_step"))).reason
        'enough'
        """
        several = None
        while number:
            number, last = divmod(number, MOST)
            several = join_stops(self.table[last - 1], several)
        assert several is not None
        return several

    def end_more_than_a_batch(self) -> bool:
        """Return whether any of the stops ends more than its own batch, so that somebody must look for it.

        >>> Stops().end_more_than_a_batch()
        False
        """
        return any(stopped.scope != "batch" for stopped in self.table)


@tree.node
class Halt:
    """A stop inside a step, as a mask.

    Attributes:
        when: a boolean scalar: whether it happened.
        number: its number in `Stops`, 0 where it did not happen or ends this batch alone.
        done: whether the batch counts as done.
        kept: whether what the batch measured and logged counts.
        held: the state, memories, tally and logged values to go on with where it happened.
    """

    when: Tensor
    number: Tensor
    done: Tensor
    kept: Tensor
    held: tuple


def halt(step: Any, after: Any, stop: Stop, event: str, callback: str, stops: Stops) -> Any:
    """Return the step with the stop of a handler as a mask; a stop before it in the step comes first.

    A stop at `after_step` lets the other handlers of that event answer: the batch is done, and when the run goes on
    nobody is asked about it again.

    Args:
        step: the `Step` before the handler.
        after: the `Step` that the stop carries.
        stop: what the handler returned.
        event: the event that was answered.
        callback: the name of the callback.
        stops: the table of numbers.
    """
    scope = scope_of(stop, event, step.phase)
    number = 0 if scope == "batch" else stops.number(Stopped(scope, stop.reason, callback, event))
    when = torch.as_tensor(stop.when, device=step.state.step.device)
    done = scope == "batch" or event == "after_step"
    new = Halt(
        when,
        torch.where(when, torch.zeros_like(step.state.step) + number, 0),
        torch.full_like(when, done, dtype=torch.bool),
        torch.full_like(when, event == "after_step", dtype=torch.bool),
        _count(after) if done else _undone(step.begun, after, callback),
    )
    return tree.evolve(after, halt=new if step.halt is None else _first(step.halt, new))


def _count(step: Any) -> tuple:
    """Return what to go on with after a batch that counts as done."""
    state = tree.evolve(step.state, step=step.state.step + 1)
    return state, step.memory, sum_up(step.metric, step.tally)


def _undone(begun: Any, after: Any, callback: str) -> tuple:
    """Return what there was before the batch, so that a resumed run begins with it; who stopped may note that."""
    state, memory, tally = begun
    own = {callback: after.memory[callback]} if callback in after.memory else {}
    return state, {**memory, **own}, sum_up(after.metric, tally)


def _first(old: Halt, new: Halt) -> Halt:
    def pick(a: Any, b: Any) -> Any:
        return tree.map(lambda x, y: torch.where(old.when, x, y), a, b)

    # Two stops at after_step are both heeded; of others the first has undone or skipped what the second looked at.
    number = torch.where(old.kept & new.kept & new.when, old.number * MOST + new.number, pick(old.number, new.number))
    rest = (pick(getattr(old, name), getattr(new, name)) for name in ("done", "kept", "held"))
    return Halt(old.when | new.when, torch.where(new.number == 0, pick(old.number, new.number), number), *rest)


def settle(step: Any) -> Any:
    """Return the step with the batch counted, and everything as it was before a stop where one happened."""
    if step.halt is None:
        return tree.evolve(step, state=tree.evolve(step.state, step=step.state.step + 1))
    before = step.halt.when & ~step.halt.kept  # what follows a stop at after_step counts
    held = tree.map(lambda a, b: torch.where(before, a, b), step.halt.held, _count(step))
    return tree.evolve(step, **dict(zip(("state", "memory", "tally"), held, strict=True)))
