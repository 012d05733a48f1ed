"""A saved run in the structure that a learner, its batches and its callbacks give, so that it goes on exactly.

A file names no classes, so each field of a `Run` is put into a structure that is made anew: the state into that of
`init`, a tally into that of the metrics, and so on. What does not fit is named before anything is trained.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import data, metrics, random, tree
from functrain.checkpoint import Anything, Saved, fields_of, into, part, records_in
from functrain.engine import ShapeDtype, Stop, eval_shape
from functrain.errors import InvalidArgument, NewerFormat, TreeMismatch
from functrain.train.events import STEP_EVENTS, Callback
from functrain.train.history import History
from functrain.train.learner import Learner, metrics_of
from functrain.train.looping.sources import Source, open_source, peek, source, sources
from functrain.train.run import Cursor, Plan, Run
from functrain.train.state import TrainState, init
from functrain.train.stepping.precision import in_precision
from functrain.train.stop import Stopped
from functrain.train.tally import LOSS, Measured, Tally, measured_by


@attrs.frozen
class Likes:
    """What the fields of a run are like, as far as a file does not say it.

    Attributes:
        state: what was saved of the state -> the state.
        tally: the phase -> a tally of it.
        logged: (the phase, the state) -> what its steps log, by name; None where that is scalars.
        example: a batch, or None where none can be had before training.
        callbacks: the callbacks.
        device: where the state goes.
    """

    state: Callable[[Saved], Any]
    tally: Callable[[str], Any]
    logged: Callable[[str, Any], Mapping[str, Any]] | None
    example: Any
    callbacks: tuple[Callback, ...]
    device: torch.device


def fit_from(saved: Saved, learner: Learner, training: Source, callbacks: tuple[Callback, ...], device: Any) -> Any:
    """Return what was saved for `fit`: the run to go on with, or the state to begin with.

    Raises:
        TreeMismatch: it was saved with another model, optimizer, metric or memory; the message lists the paths.
        InvalidArgument: something else was saved.
    """
    example = _example(training)
    place = _device(example) if device is None else torch.device(device)

    def state(one: Saved) -> TrainState:
        what = "the state of this learner, and was saved with another model or optimizer"
        return tree.to(into(one, _state_like(learner, example, one), what), place)

    def tally(phase: str) -> Tally:
        metric = measured_by(metrics_of(learner, "train" if phase == "train" else "valid"))
        return Tally(metric.init(torch.device("cpu")), Anything())  # pyright: ignore[reportArgumentType]

    if _is_run(saved):
        return _resume(saved, Likes(state, tally, None, example, callbacks, place))
    if set(fields_of(saved)) >= {field.name for field in attrs.fields(TrainState)}:
        return state(saved)
    raise InvalidArgument(f"state: {saved.path} holds neither a run nor a training state, but {_describe(saved)}")


def loop_from(
    saved: Saved,
    like: Any,
    steps: Mapping[str, tuple[Callable, Source]],
    callbacks: tuple[Callback, ...],
) -> Run:
    """Return the saved run for `loop` to go on with.

    Args:
        saved: what was saved.
        like: a carry of the structure; None if it is of dicts, lists and tuples.
        steps: by phase the function that is called with a batch, and where the batches come from.
        callbacks: the callbacks.
    """
    example = _example(steps["train"][1])

    def logged(phase: str, state: Any) -> Mapping[str, Any]:
        step, batches = steps[phase]
        if (batch := peek(batches)) is None:
            raise InvalidArgument(
                f"{saved.path} has what was measured of some batches of {phase}, and a file does not name metrics: a "
                f"batch is needed to ask the step, and {phase} has none left; pass it anew, or as a list"
            )
        result = step(state, batch)
        return (result.y if isinstance(result, Stop) else result[1]) or {}

    if not _is_run(saved):
        raise InvalidArgument(
            f"state: {saved.path} holds no run, but {_describe(saved)}; checkpoint.into(saved, like) makes a carry "
            "of it to begin with"
        )
    device = _device(example if like is None else like)
    return _resume(saved, Likes(lambda one: _carry(one, like), lambda phase: (), logged, example, callbacks, device))


def run_from(learner: Any, saved: Saved, callbacks: tuple[Callback, ...], options: Mapping[str, Any]) -> Any:
    """Return what was saved as `fit` or `loop` would take it, by the options that they are called with.

    Args:
        learner: a `Learner`, or a step of one's own.
        saved: what was saved.
        callbacks: the callbacks, ordered.
        options: the other arguments of `fit` or `loop` by name.
    """
    if isinstance(learner, Learner):
        device = options.get("device")
        precise = in_precision(learner, options.get("precision"))
        return fit_from(saved, precise, source(options["train"], "train", device), callbacks, device)
    ways: dict[str, tuple[Callable, Source]] = {"train": (learner, source(options["train"], "train", plain=True))}
    for name, one in sources(options.get("valid"), plain=True).items():
        ways[name] = (partial(_evaluate, options["evaluate"]), one)
    return loop_from(saved, options.get("like"), ways, callbacks)


def _evaluate(evaluate: Callable, state: Any, batch: Any) -> tuple[Any, Any]:
    return state, evaluate(state, batch)


def _carry(saved: Saved, like: Any) -> Any:
    if like is not None:
        return into(saved, like, "`like`, a carry of this step")
    try:
        return into(saved, Anything())
    except TreeMismatch as error:
        raise InvalidArgument(
            f"{saved.path} has records, of which a file does not name the classes; pass like=, a carry to begin with"
        ) from error


def _is_run(saved: Saved) -> bool:
    return {"state", "cursor", "plan", "memory"} <= set(fields_of(saved))


def _describe(saved: Saved) -> str:
    return f"{', '.join(fields_of(saved)[:10]) or 'a value without names'}"


# The state


def _state_like(learner: Learner, example: Any, saved: Saved) -> TrainState:
    """Return a state of the learner without memory; without an example, of the parameters that were saved."""
    if example is not None:
        return _without_memory(lambda batch: init(learner, random.key(0), batch), example)
    params, buffers = (into(part(saved, name), Anything()) for name in ("params", "buffers"))
    opt_state = _without_memory(learner.optimizer.init, params)
    number = torch.zeros((), dtype=torch.int64, device="meta")
    return TrainState(
        params=tree.map(_meta, params),
        buffers=tree.map(_meta, buffers),
        opt_state=opt_state,
        key=_meta(random.key(0)),
        **{name: number for name in ("step", "updates", "start", "end", "epoch_length")},
    )


def _without_memory(f: Callable, argument: Any) -> Any:
    try:
        made = eval_shape(f, argument)
    except Exception:  # it looks at values; what else is wrong is raised again
        made = f(argument)
    return tree.map(_meta, made)


def _meta(leaf: Any) -> Any:
    if isinstance(leaf, Tensor | ShapeDtype):
        return torch.empty(leaf.shape, dtype=leaf.dtype, device="meta")
    return leaf


def _example(source: Source) -> Any:
    """Return a batch, if the source can be begun again."""
    if not source.begins_anywhere:
        return None
    return next(open_source(source, random.key(0), 0, 0, None))


def _device(value: Any) -> torch.device:
    leaves = (leaf for leaf in tree.leaves(value) if isinstance(leaf, Tensor))
    return next((leaf.device for leaf in leaves), torch.device("cpu"))


# The run


def _resume(saved: Saved, likes: Likes) -> Run:
    state = likes.state(part(saved, "state"))
    anything = _anything(state, likes)
    phase = part(part(saved, "cursor"), "phase").leaves[""]
    ended = part(saved, "point").outline is not None  # what `after_fit` made of it may be of any structure
    readers: dict[str, Callable[[Saved], Any]] = {
        "state": lambda one: state,
        "memory": lambda one: _memories(one, likes.callbacks, anything, strict=not ended),
        "tally": lambda one: into(one, likes.tally(phase), "a tally of these metrics") if fields_of(one) else (),
        "logged": lambda one: _log(one, likes, phase, state),
        "point": lambda one: _resume(one, likes) if ended else None,
        **{name: _as_record(cls, anything) for name, cls in (("cursor", Cursor), ("plan", Plan), ("history", History))},
    }
    return _move(_as_record(Run, anything, readers)(saved), saved, likes.device)


def _anything(state: Any, likes: Likes) -> Anything:
    memories = [callback.memory for callback in likes.callbacks]
    of_callbacks = [record for callback in likes.callbacks for record in callback.records]
    records = (*records_in(state, likes.example, *memories), *of_callbacks, data.Batch, Stopped, metrics.Mean)
    return Anything(tuple(dict.fromkeys(records)), tuple(one for one in (state, *memories) if attrs.has(type(one))))


def _as_record(
    cls: type, anything: Anything, readers: Mapping[str, Callable[[Saved], Any]] | None = None
) -> Callable[[Saved], Any]:
    """Return a function from what was saved of a record to the record; fields that were not saved have their defaults.

    So a run that was saved before a field was added can be gone on with.
    """

    def read(saved: Saved) -> Any:
        names, own = fields_of(saved), {field.name for field in attrs.fields(cls)}
        if unknown := [name for name in names if name not in own]:
            raise NewerFormat(
                f"{saved.path} has {unknown[0]!r}, which this functrain does not know; install a newer one"
            )
        reader = readers or {}
        return cls(**{name: reader.get(name, lambda one: into(one, anything))(part(saved, name)) for name in names})

    return read


def _memories(saved: Saved, callbacks: tuple[Callback, ...], anything: Anything, strict: bool) -> dict[str, Any]:
    """Return the callbacks' memories; one that is traced keeps its structure. That of a stranger is not read.

    One that begins without a tensor gets its structure when the fit begins, so what was saved says it.
    """

    def memory(name: str) -> Any:
        callback = next((callback for callback in callbacks if callback.name == name), None)
        if callback is None:  # the plans are compared later
            return None
        begun = any(isinstance(leaf, Tensor) for leaf in tree.leaves(callback.memory))  # else by `begin_fit`
        traced = strict and begun and callback.handles(*STEP_EVENTS)
        hint = "" if traced else "; a class that it comes to hold later is named in Callback(records=...)"
        like = tree.map(_meta, callback.memory) if traced else anything
        return into(part(saved, name), like, f"the memory of callback {name!r}{hint}")

    return {name: memory(name) for name in fields_of(saved)}


def _log(saved: Saved, likes: Likes, phase: str, state: Any) -> dict[str, Any]:
    """Return what was logged: means of scalars, and what was measured, by the metrics that the step logs now."""
    parts = {name: part(saved, name) for name in fields_of(saved)}
    measured = [name for name, one in parts.items() if fields_of(one) == ("accumulator",)]
    now = likes.logged(phase, state) if measured and likes.logged is not None else {}
    mean = tree.map(_meta, LOSS.init())
    for name in measured:
        if not isinstance(now.get(name), Measured):
            raise TreeMismatch(
                f"{saved.path} has {name!r} as Measured, and of the first batch this step logs {_logs_in_words(now)}; "
                "a file does not name metrics, so go on with the step that it was saved with"
            )
    return {
        name: into(one, now.get(name, mean) if name in measured else mean, f"what is logged as {name!r}")
        for name, one in parts.items()
    }


def _logs_in_words(logs: Mapping[str, Any]) -> str:
    kinds = (f"{name!r} as {'Measured' if isinstance(log, Measured) else 'a scalar'}" for name, log in logs.items())
    return ", ".join(kinds) or "nothing"


def _move(run: Run, saved: Saved, device: torch.device) -> Run:
    """Return the run with what was on an accelerator on the device of the state."""
    away = {id(saved.tensors[name]) for name, where in saved.devices.items() if where.partition(":")[0] != "cpu"}
    if not away:
        return run

    def move(leaf: Any) -> Any:
        return leaf.to(device) if id(leaf) in away else leaf

    names = ("memory", "tally", "logged", "batch", "logs")
    return attrs.evolve(run, **{name: tree.map(move, getattr(run, name)) for name in names})
