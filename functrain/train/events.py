"""Events and callbacks: how anything outside the loop takes part in it, without changing anything in place.

A callback is data: a name, pure handlers by event, an order, and an initial memory. A handler takes a record and
returns a changed record, a `Stop`, or None for "no change" (what Python returns when nothing is returned).
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
from torch import Tensor

from functrain import foreign, tree
from functrain.data import Batch, as_batch
from functrain.errors import DuplicateName, InvalidArgument, InvalidCallbackResult, InvalidMemory, UnknownEvent
from functrain.records import pickling, reprs

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

PHASES = ("train", "valid")

BY_PHASE = frozenset(("begin_batch", "after_batch", "after_chunk"))
"""The host events of which a callback hears in its phases alone."""

MOST_DEEP = 32


def _check_events(_callback, _attribute, handlers):
    for event, handler in handlers.items():
        if event not in EVENTS:
            near = difflib.get_close_matches(str(event), EVENTS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UnknownEvent(f"unknown event {event!r}; {hint}the events are {', '.join(EVENTS)}")
        if not callable(handler):
            raise InvalidArgument(f"the handler of {event!r} must be a function, got {handler!r}")


def _check_phases(_callback, _attribute, phases):
    if not phases or any(phase not in PHASES for phase in phases):
        raise InvalidArgument(f"phases must be some of {PHASES}, got {phases!r}")


def _check_order(_callback, _attribute, order):
    if isinstance(order, bool) or not isinstance(order, int | float) or order != order:
        raise InvalidArgument(f"order must be a number, by which callbacks are called, got {order!r}")


def _resource(_callback, _attribute, resource):
    if resource is not None and not callable(resource):
        raise InvalidArgument(
            f"resource must be a function of the run that returns a context manager, got {resource!r}; pass the "
            "function, not what it returns"
        )


def _boundary(_callback, _attribute, boundary):
    if boundary is not None and not callable(boundary):
        raise InvalidArgument(f"boundary must be a function of a run, got {boundary!r}")


@attrs.frozen(repr=False)
class Callback:
    """Something that takes part in training: pure handlers by event, and a memory that is threaded through the run.

    Attributes:
        name: by which its memory is found: `run.memory[name]`.
        handlers: event -> handler. A handler of `HOST_EVENTS` maps a `Run`, one of `STEP_EVENTS` a `Step`.
        order: callbacks with a lower order are called first; equal ones in the order given.
        memory: the initial memory: a tree of tensors, numbers, strings, None and frozen nodes, at most 32 deep; of
            tensors alone where there are step handlers, as it is traced.
        phases: in which phases its handlers of batches and steps are called: "train", "valid", or both.
        keeps_state: whether a handler may keep `run.state` after it returns. The loop reuses the state's buffers, so
            such a handler is handed a copy; say False where the handlers only look, and no copy is made, nor is looked
            whether they write to the state in place, which none may.
        reads_logs: whether its handlers of `after_batch` and `after_chunk` read `run.logs`; say False where they only
            count, and no values of single batches are computed.
        resource: None, or a function of the run that returns a context manager for what is live, such as a bar or a
            file. It is opened before `begin_fit` and closed after `after_fit`, also when something raises; its exit
            cannot swallow that. The host handlers then take (run, resource). It is never part of the run.
        boundary: None, or a function of a run from which a fit can go on (and of the resource, if there is one). The
            loop calls it where it may be saved: after all handlers of an event, when the row is in the history; between
            two chunks; and with the result. It looks, and returns nothing. What it keeps of the state it must copy.
        records: the classes of records that the memory may come to hold, beside those that it begins with, so that a
            saved run is restored with them.

    >>> def count(run):
    ...     return attrs.evolve(run, memory={**run.memory, "counter": run.memory["counter"] + 1})
    >>> Callback("counter", {"after_epoch": count}, memory=0).name
    'counter'
    >>> Callback("counter", {"after_epoch": count}, memory=0)
    Callback(name='counter', handlers={'after_epoch': count}, memory=0)
    """

    name: str = attrs.field(validator=attrs.validators.instance_of(str))
    handlers: Mapping[str, Callable[..., Any]] = attrs.field(validator=_check_events)
    order: float = attrs.field(default=0, validator=_check_order)
    memory: Any = ()
    phases: tuple[str, ...] = attrs.field(default=("train",), converter=tuple, validator=_check_phases)
    keeps_state: bool = True
    reads_logs: bool = True
    resource: Callable[[Any], Any] | None = attrs.field(default=None, validator=_resource)
    boundary: Callable[..., None] | None = attrs.field(default=None, validator=_boundary)
    records: tuple[type, ...] = attrs.field(default=(), converter=tuple)

    __repr__ = reprs.record
    __reduce_ex__ = pickling.reduce

    def __attrs_post_init__(self) -> None:
        if self.handles(*STEP_EVENTS):
            tree.check_tensors(self.memory, f"the memory of callback {self.name!r}, whose step handlers are traced")
        else:
            check_memory(self.memory, self.name)

    def handles(self, *events: str) -> bool:
        """Return whether any of these events has a handler.

        >>> Callback("quiet", {}).handles("after_epoch")
        False
        """
        return any(event in self.handlers for event in events)


def in_order(callbacks: Iterable[Callback]) -> tuple[Callback, ...]:
    """Return the callbacks in the order in which they are called; each name may come once.

    >>> [c.name for c in in_order([Callback("b", {}, order=1), Callback("a", {})])]
    ['a', 'b']
    """
    if not isinstance(callbacks, Iterable):
        raise InvalidArgument(f"callbacks must be a list of Callback records, got {tree.describe(callbacks)}")
    all_of_them = tuple(callbacks)
    for callback in all_of_them:
        if not isinstance(callback, Callback):
            hint = foreign.way_in(callback) or ("; call it to make the callback" if callable(callback) else "")
            raise InvalidArgument(f"callbacks must be Callback records, got {reprs.short(callback)}{hint}")
    names = [callback.name for callback in all_of_them]
    for name in names:
        if names.count(name) > 1:
            raise DuplicateName(f"two callbacks are named {name!r}; their memories would collide: rename one")
    return tuple(sorted(all_of_them, key=lambda callback: callback.order))


@contextmanager
def naming(callback: str, event: str) -> Iterator[None]:
    """Add to what a handler raises which callback and event it was, once.

    >>> with naming("mine", "after_epoch"):
    ...     pass
    """
    try:
        yield
    except BaseException as error:
        note = f"in callback {callback!r}, event {event!r}"
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        raise


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


def check_changes(after: Any, before: Any, may: frozenset[str], event: str, name: str) -> None:
    """Raise `InvalidCallbackResult` when a handler replaced a field whose change would be lost.

    >>> check_changes(None, None, frozenset(), "after_epoch", "mine")
    """
    if after is before:
        return
    old = vars(before)
    lost = [field for field, value in vars(after).items() if value is not old.get(field) and field not in may]
    if lost:
        kind, names = type(before).__name__, sorted(field.removeprefix("_") for field in may)
        raise InvalidCallbackResult(
            f"callback {name!r}, event {event!r}: a handler of this event may replace {', '.join(names)} of the "
            f"{kind}, and it replaced {', '.join(field.removeprefix('_') for field in lost)}, which would be lost"
        )


def with_whole_parts(after: Any, before: Any, event: str, name: str) -> Any:
    """Return a record with a `Batch` where a handler put a pair or a triple, and raise where a part became another one.

    Raises:
        InvalidArgument, NotATensor, ShapeMismatch: the batch is none.
        TreeMismatch: the state or the gradients have not the structure that they had.
        InvalidMemory: a memory is missing, or there is one too many.
        InvalidCallbackResult: a mapping, the history or the tally became something else.

    >>> with_whole_parts(None, None, "after_epoch", "mine")
    """
    if after is before:
        return after
    _check_kinds(after, before, event, name)
    for part in ("state", "grads"):
        new, old = getattr(after, part, None), getattr(before, part, None)
        if new is not old:
            tree.check_same(old, new, f"the {part} that the handler returned", f"the {part} that it was passed")
    if after.memory is not before.memory and after.memory.keys() != before.memory.keys():
        raise InvalidMemory(
            f"callback {name!r} returned memories of {sorted(after.memory)}, and the callbacks of this run are "
            f"{sorted(before.memory)}; a handler changes the memory under its own name"
        )
    if after.batch is before.batch or not isinstance(before.batch, Batch):
        return after
    batch = as_batch(after.batch, what=f"the batch that callback {name!r} returned at {event!r}")
    return after if batch is after.batch else tree.evolve(after, batch=batch)


def _check_kinds(after: Any, before: Any, event: str, name: str) -> None:
    """Raise where a handler put something in the place of a mapping, the history or the tally that is none."""
    for field, old in vars(before).items():
        new = getattr(after, field)
        kind = Mapping if isinstance(old, Mapping) else type(old) if field in ("history", "tally") else object
        if new is not old and not isinstance(new, kind):
            raise InvalidCallbackResult(
                f"callback {name!r}, event {event!r}: {field} must be a {kind.__name__}, as it was, and the handler "
                f"put {tree.describe(new)} there"
            )


# The memory


def remember(record: Any, name: str, memory: Any) -> Any:
    """Return a `Run` or `Step` in which the callback of this name has this memory.

    Raises:
        InvalidArgument: no callback has this name.

    >>> from functrain.train import Run
    >>> remember(Run(state=None, memory={"counter": 2}), "counter", 3).memory
    {'counter': 3}
    """
    if name not in record.memory:
        raise InvalidArgument(
            f"no callback {name!r} takes part whose memory could be set here; there are {sorted(record.memory)}"
        )
    return attrs.evolve(record, memory={**record.memory, name: memory})


def check_memory(memory: Any, name: str) -> None:
    """Raise `InvalidMemory` unless a memory is a tree of tensors, numbers, strings, None and frozen nodes.

    So that each run can be saved, compared, and gone on from.

    >>> check_memory({"best": 0.5, "state": None}, "mine")
    """
    wrong = _unsavable(memory, "", 0)
    if wrong is not None:
        path, what = wrong
        raise InvalidMemory(
            f"the memory of callback {name!r}{f' at {path}' if path else ''}: it must be a tree of tensors, numbers, "
            f"strings, None and frozen nodes, at most {MOST_DEEP} deep, so that the run can be saved; got {what}. What "
            "is live belongs in the callback's resource; make a class of your own a node with tree.node"
        )


def _unsavable(value: Any, path: str, depth: int) -> tuple[str, str] | None:
    if value is None or type(value) in (int, float, str, bool, complex) or isinstance(value, Tensor):
        return None
    if depth == MOST_DEEP:
        return path, f"a tree of more than {MOST_DEEP} levels"
    if isinstance(value, dict):
        odd = [key for key in value if not isinstance(key, str | int)]
        if odd:
            return path, f"the key {odd[0]!r}, which is no string"
        children = value.items()
    elif type(value) in (tuple, list):
        children = enumerate(value)
    elif attrs.has(type(value)) and not tree.structure(value).is_leaf():  # a class made by `tree.node`
        children = vars(value).items()
    else:
        return path, f"{type(value).__name__}: {value!r:.60}"
    wrong = (_unsavable(child, f"{path}.{key}" if path else str(key), depth + 1) for key, child in children)
    return next((one for one in wrong if one is not None), None)
