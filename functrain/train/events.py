"""Events, callbacks and signals: how anything outside the loop takes part in it, without changing anything in place.

A callback is data: a name, pure handlers by event, an order, and an initial memory. A handler takes a record and
returns a changed record, a `Stop`, or None for "no change" (what Python returns when nothing is returned).
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from functrain import tree
from functrain.engine import Stop
from functrain.errors import DuplicateName, InvalidArgument, InvalidCallbackResult, UnknownEvent

STEP_EVENTS = ("begin_step", "after_pred", "after_loss", "after_grads", "after_step")
"""The events inside a step. Their handlers take and return a `Step` and are traced with it."""

HOST_EVENTS = (
    "begin_fit",
    "begin_epoch",
    "begin_batch",
    "after_batch",
    "after_chunk",
    "begin_validate",
    "after_validate",
    "after_epoch",
    "after_fit",
)
"""The events around the step. Their handlers take and return a `Run`, and are ordinary Python."""

EVENTS = HOST_EVENTS + STEP_EVENTS

SCOPES = ("batch", "epoch", "validate", "fit")
"""What a `Stop` can end: the rest of this batch, of this epoch's training half, of this validation, of the fit."""

USUAL_SCOPE = {
    **dict.fromkeys(STEP_EVENTS, "batch"),
    "begin_fit": "fit",
    "begin_epoch": "epoch",
    "begin_batch": "batch",
    "after_batch": "batch",
    "after_chunk": "batch",
    "begin_validate": "validate",
    "after_validate": "validate",
    "after_epoch": "fit",
    "after_fit": "fit",
}
"""What a `Stop` without a scope ends, by the event that it answers (as a cancelled event did in the lesson)."""

_BETWEEN_BATCHES = ("begin_fit", "begin_epoch", "begin_validate", "after_validate", "after_epoch", "after_fit")

PHASES = ("train", "valid")


def _known_events(_callback, _attribute, handlers):
    for event, handler in handlers.items():
        if event not in EVENTS:
            near = difflib.get_close_matches(str(event), EVENTS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UnknownEvent(f"unknown event {event!r}; {hint}the events are {', '.join(EVENTS)}")
        if not callable(handler):
            raise InvalidArgument(f"the handler of {event!r} must be a function, got {handler!r}")


def _known_phases(_callback, _attribute, phases):
    if not phases or any(phase not in PHASES for phase in phases):
        raise InvalidArgument(f"phases must be some of {PHASES}, got {phases!r}")


@attrs.frozen
class Callback:
    """Something that takes part in training: pure handlers by event, and a memory that is threaded through the run.

    Attributes:
        name: by which its memory is found: `run.memory[name]`.
        handlers: event -> handler. A handler of `HOST_EVENTS` maps a `Run`, one of `STEP_EVENTS` a `Step`.
        order: callbacks with a lower order are called first; equal ones in the order given.
        memory: the initial memory. With step handlers, a tree of tensors, as it is traced; else any value.
        phases: in which phases its handlers of batches and steps are called: "train", "valid", or both.
        keeps_state: whether a handler may keep `run.state` after it returns. The loop reuses the state's buffers, so
            such a handler is handed a copy; say False where the handlers only look, and no copy is made.
        reads_logs: whether its handlers of `after_batch` and `after_chunk` read `run.logs`; say False where they only
            count, and no values of single batches are computed.
        padding_safe: whether its step handlers before the gradients (`begin_step`, `after_pred`, `after_loss`) treat
            each row by itself, or heed the batch's weight. Where one may not, as it mixes rows (mixup), a short last
            batch is not filled up by rows of zero weight, which takes a trace of its own.

    >>> def count(run):
    ...     return attrs.evolve(run, memory={**run.memory, "counter": run.memory["counter"] + 1})
    >>> Callback("counter", {"after_epoch": count}, memory=0).name
    'counter'
    """

    name: str = attrs.field(validator=attrs.validators.instance_of(str))
    handlers: Mapping[str, Callable[[Any], Any]] = attrs.field(validator=_known_events)
    order: float = 0
    memory: Any = ()
    phases: tuple[str, ...] = attrs.field(default=("train",), converter=tuple, validator=_known_phases)
    keeps_state: bool = True
    reads_logs: bool = True
    padding_safe: bool = False

    def __attrs_post_init__(self) -> None:
        if self.handles(*STEP_EVENTS):
            tree.check_tensors(self.memory, f"the memory of callback {self.name!r}, whose step handlers are traced")

    def handles(self, *events: str) -> bool:
        """Return whether any of these events has a handler.

        >>> Callback("quiet", {}).handles("after_epoch")
        False
        """
        return any(event in self.handlers for event in events)


@attrs.frozen
class Signal:
    """A stop that is under way: what it ends, and who said so.

    Attributes:
        scope: one of `SCOPES`.
        reason: why, in words for a person.
        callback: the name of the callback.
        event: the event that was answered.
        epoch: the epoch, from 0.
        step: the batch of that epoch, from 0.
    """

    scope: str
    reason: str
    callback: str
    event: str
    epoch: int
    step: int

    def __str__(self) -> str:
        # Between the batches the number would be that of the phase that is over.
        batch = "" if self.event in _BETWEEN_BATCHES else f", batch {self.step}"
        where = f"epoch {self.epoch + 1}{batch}"
        return f"{self.scope} stopped by {self.callback!r} at {self.event}, {where}: {self.reason or 'no reason given'}"


def ordered(callbacks: Iterable[Callback]) -> tuple[Callback, ...]:
    """Return the callbacks in the order in which they are called; each name may come once.

    >>> [c.name for c in ordered([Callback("b", {}, order=1), Callback("a", {})])]
    ['a', 'b']
    """
    if not isinstance(callbacks, Iterable):
        raise InvalidArgument(f"callbacks must be a list of Callback records, got {tree.describe(callbacks)}")
    found = tuple(callbacks)
    for callback in found:
        if not isinstance(callback, Callback):
            hint = "; call it to make the callback" if callable(callback) else ""
            raise InvalidArgument(f"callbacks must be Callback records, got {callback!r}{hint}")
    names = [callback.name for callback in found]
    for name in names:
        if names.count(name) > 1:
            raise DuplicateName(f"two callbacks are named {name!r}; their memories would collide: rename one")
    return tuple(sorted(found, key=lambda callback: callback.order))


def emit(event: str, callbacks: Iterable[Callback], run: Any) -> Any:
    """Return the run after each handler of a host event has answered, in order; the first stop ends the round.

    Args:
        event: one of `HOST_EVENTS`.
        callbacks: callbacks, already `ordered`.
        run: a `Run`; after a stop, its `signal` says which.

    Raises:
        InvalidCallbackResult: a handler returned something else than a run, a `Stop` or None.

    >>> from functrain.train.run import Run
    >>> def halve(run):
    ...     return Stop(run, reason="enough") if run.logs["valid/loss"] < 0.1 else None
    >>> run = Run(learner=None, state=None, logs={"valid/loss": 0.05})
    >>> emit("after_epoch", [Callback("enough", {"after_epoch": halve})], run).signal.scope
    'fit'
    """
    for callback in callbacks:
        handler = callback.handlers.get(event)
        if handler is None or (event in _BY_PHASE and run.phase not in callback.phases):
            continue
        run = _accept(handler(run), run, event, callback.name)
        if run.signal is not None:
            break
    return run


_BY_PHASE = frozenset(("begin_batch", "after_batch", "after_chunk"))


def _accept(result, run, event, name):
    if result is None:
        return run
    if isinstance(result, type(run)):
        return result
    if isinstance(result, Stop):
        stopped = check_answer(result.carry, run, event, name)
        if not bool(result.when):
            return stopped
        scope = scope_of(result, event)
        return attrs.evolve(stopped, signal=Signal(scope, result.reason, name, event, run.epoch, run.step))
    return check_answer(result, run, event, name)


def check_answer(answer: Any, record: Any, event: str, name: str) -> Any:
    """Return a handler's answer when it is of the record's type, and raise `InvalidCallbackResult` otherwise.

    >>> check_answer(3, 4, "after_epoch", "mine")
    3
    """
    if isinstance(answer, type(record)):
        return answer
    kind = type(record).__name__
    raise InvalidCallbackResult(
        f"callback {name!r}, event {event!r}: a handler must return a {kind}, Stop({kind.lower()}, ...) or None for no "
        f"change, got {type(answer).__name__}: {answer!r:.80}"
    )


def scope_of(stop: Stop, event: str) -> str:
    """Return what a stop ends: its own scope, or the one that is usual for the event.

    >>> scope_of(Stop(None), "begin_epoch")
    'epoch'
    """
    if stop.scope is None:
        return USUAL_SCOPE[event]
    if stop.scope not in SCOPES:
        raise InvalidArgument(f"the scope of a Stop must be one of {', '.join(SCOPES)}, got {stop.scope!r}")
    return stop.scope
