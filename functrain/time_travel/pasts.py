"""A run that can be gone through again, and how it is: with the same callbacks, and a guest that looks and stops it."""

import math
import os
from collections.abc import Mapping
from typing import Any

import attrs

from functrain import arguments, checkpoint
from functrain.checkpoint import Saved
from functrain.errors import InvalidArgument, NoCheckpoint
from functrain.records import reprs
from functrain.train import Callback, Learner, Run, fit, loop
from functrain.train.checking.resuming import run_from
from functrain.train.events import in_order
from functrain.train.looping.sources import source, sources
from functrain.train.run import batches_done

GUEST = "time travel"
"""The name of the callback that takes part beside those of the run."""


@attrs.frozen(repr=False)
class Past:
    """A run that can be gone through again; made by `past`.

    Attributes:
        learner: what was trained, a `Learner` or a step of one's own.
        source: a folder of checkpoints, a `Saved`, a `Run`, or None.
        state: what the run began with, or None.
        options: what `fit` or `loop` was called with besides.
    """

    learner: Any
    source: Any
    state: Any
    options: Mapping[str, Any]

    __repr__ = reprs.record


def past(learner: Any, source: Any = None, *, state: Any = None, **options: Any) -> Past:
    """Return a run that can be gone through again.

    Args:
        learner: what was trained, a `Learner`, or a step of one's own as `loop` takes it.
        source: where to begin: a folder of checkpoints, of which the nearest is taken, as `save_checkpoints` made it;
            one `Saved`, or a `Run`.
        state: the state that the run began with, for steps before the first checkpoint; the options then need epochs
            or steps.
        options: what `fit` or `loop` was called with: train, valid, callbacks, jit and so on. A callback that saves
            does not do so here; one that only shows something may be replaced by an empty one of its name.

    Raises:
        InvalidArgument: there is nothing to begin with.

    >>> past("a learner", "run", train="a loader").source
    'run'
    """
    if source is None and state is None:
        raise InvalidArgument("pass the folder of checkpoints, a Saved, a Run, or state=, what the run began with")
    if source is not None and not isinstance(source, (str, os.PathLike, Saved, Run)):
        raise InvalidArgument(f"source must be a folder of checkpoints, a Saved or a Run, got {type(source).__name__}")
    return Past(learner, source, state, options)


def gone_through(past: Past, step: int, guest: Callback, **changes: Any) -> Run:
    """Return the run gone through from the nearest start before a step, with a guest that takes part.

    >>> gone_through(past("a learner", "nowhere", train=[1, 2]), 3, Callback(GUEST, {}))
    Traceback (most recent call last):
        ...
    functrain.errors.NoCheckpoint: step 3: there is no checkpoint in nowhere
    """
    callbacks = taking_part(past)
    _check_sources(past.options)
    start = nearest(past, step)
    run = run_from(past.learner, start, callbacks, past.options) if isinstance(start, Saved) else start
    return go_on(past, run, guest, **changes)


def _check_sources(options: Mapping[str, Any]) -> None:
    """Raise `InvalidArgument` where a source of batches may give others when it is gone through again."""
    for one in (source(options["train"], "train"), *sources(options.get("valid")).values()):
        if not one.begins_anywhere:
            raise InvalidArgument(
                f"{one.name} must be a Loader or a list, which gives the same batches again, from any on; got "
                f"{type(one.batches).__name__}. data.loader(dataset, sampler) makes one of a dataset, list(batches) of "
                "a generator; pass it to fit too"
            )


def go_on(past: Past, start: Any, guest: Callback, **changes: Any) -> Run:
    """Return what `fit` or `loop` makes of a run or a state, with a guest; a finished run is one no more."""
    callbacks = taking_part(past)
    if isinstance(start, Run):
        start = _with_guest(start.point or start)
    how: Any = fit if isinstance(past.learner, Learner) else loop
    options = {name: value for name, value in past.options.items() if name not in ("callbacks", "chunk")}
    if isinstance(start, Run):
        options = {name: value for name, value in options.items() if name not in ("epochs", "steps")}
    return how(past.learner, start, callbacks=[*callbacks, guest], **{**options, **changes})


def taking_part(past: Past) -> tuple[Callback, ...]:
    """Return the callbacks of a run, those that save silenced.

    >>> taking_part(past("a learner", "run"))
    ()
    """
    return tuple(_silence(callback) for callback in in_order(past.options.get("callbacks", ())))


def _silence(callback: Callback) -> Callback:
    if callback.boundary is None:
        return callback
    return attrs.evolve(callback, handlers={}, resource=None, boundary=None)


def guest(handlers: Mapping[str, Any], memory: Any = ()) -> Callback:
    """Return the guest, which answers last."""
    return Callback(GUEST, handlers, order=math.inf, memory=memory, keeps_state=False)


def _with_guest(run: Run) -> Run:
    plan = attrs.evolve(run.plan, callbacks=(*run.plan.callbacks, GUEST))
    return attrs.evolve(run, plan=plan, memory={**run.memory, GUEST: ()}, point=None)


def without_guest(run: Run) -> Run:
    """Return a run as if the guest had not been there.

    >>> without_guest(Run(None, {GUEST: ()})).memory
    {}
    """
    names = tuple(name for name in run.plan.callbacks if name != GUEST)
    memory = {name: value for name, value in run.memory.items() if name != GUEST}
    return attrs.evolve(run, plan=attrs.evolve(run.plan, callbacks=names), memory=memory)


def nearest(past: Past, step: int) -> Any:
    """Return the latest start that is not behind a step: a `Saved`, a `Run` or the state.

    Raises:
        NoCheckpoint: the folder has none, and there is no state.
        InvalidArgument: all of them are behind it.
    """
    arguments.whole("step", step, 0)
    if isinstance(past.source, (str, os.PathLike)):
        checkpoints = steps_in(past.source)
        before = [(at, path) for at, path in checkpoints if at <= step]
        if before:
            return checkpoint.restore(max(before)[1])
        first = min(checkpoints)[0] if checkpoints else None
    else:
        first = _first_step(past.source)
        if first is not None and first <= step:
            return past.source
    if past.state is not None:
        return past.state
    if first is None:
        raise NoCheckpoint(f"step {step}: there is no checkpoint in {past.source}")
    raise InvalidArgument(f"step {step}: the earliest start is step {first}; pass state=, what the run began with")


def steps_in(folder: str | os.PathLike) -> list[tuple[int, str]]:
    """Return the checkpoints of a folder that say how many batches were done, with their files.

    >>> steps_in("nowhere")
    []
    """
    checkpoints = [(entry.info.get("step"), entry.path) for entry in checkpoint.entries(folder)]
    return [(step, path) for step, path in checkpoints if isinstance(step, int)]


def _first_step(source: Any) -> int | None:
    if isinstance(source, Run):
        return batches_done(source.point or source)
    if isinstance(source, Saved):
        step = source.info.get("step")
        return step if isinstance(step, int) else 0
    return None
