"""The loop around a step of one's own: GANs, reinforcement learning, meta-learning; whatever maps (carry, batch)."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from functrain import random, tree
from functrain.checkpoint import Saved
from functrain.engine import Stop
from functrain.errors import InvalidArgument, RunMismatch, TreeMismatch
from functrain.train.checking.resuming import run_from
from functrain.train.events import STEP_EVENTS, Callback, in_order
from functrain.train.looping.chunks import Advance, Carry, feed
from functrain.train.looping.compiling import check_backend, is_donated, keep
from functrain.train.looping.phase import Phase, Task
from functrain.train.looping.places import carry_out
from functrain.train.looping.planning import begin_run, make_plan
from functrain.train.looping.sources import Source, source, sources
from functrain.train.run import Run
from functrain.train.stepping.detaching import without_history
from functrain.train.stop import Stopped, Stops, scope_of
from functrain.train.tally import Measured, check_name, value_of


def loop(
    step: Callable[[Any, Any], Any],
    state: Any,
    *,
    key: Tensor | None = None,
    train: Any,
    epochs: int | None = None,
    steps: int | None = None,
    valid: Any = None,
    valid_steps: int | str | Mapping[str, Any] | None = None,
    evaluate: Callable[[Any, Any], dict[str, Any]] | None = None,
    callbacks: Iterable[Callback] = (),
    jit: str | bool = "aten",
    chunk: int = 8,
    like: Any = None,
) -> Run:
    """Run the loop around any pure step: events, progress, history, validation, resuming and compiling come with it.

    Args:
        step: (carry, batch) -> (carry, logs), or `Stop(carry, logs, when=...)` to end the run after this batch (or
            what its `scope` says). The logs are a dict of scalars, of which the history shows the mean by the batches'
            weights, or of `Measured(metric, accumulator)`, which are merged and computed.
        state: the first carry, a tree of tensors; or the `Run` to go on with, or what `checkpoint.restore` or
            `checkpoint.latest` returned of one. It stays as it is.
        key: the random key of the loaders' orders and draws; a run that goes on has its own already.
        train: a `data.Loader`, of which the step gets a `Batch`, or any iterable, of which it gets what comes.
        epochs: how many times to go through `train`; or
        steps: how many batches to take in all.
        valid: batches to validate on after each epoch, or several such by name.
        valid_steps: how many batches of `valid` to take each time, as in `fit`.
        evaluate: (carry, batch) -> logs, for the validation.
        callbacks: what takes part, see `Callback`; here without step events, which only `fit` has.
        jit: the backend that compiles step and evaluate, "aten", "inductor" or "cudagraph"; False for plain Python.
        chunk: batches in one call, where no callback looks at single batches.
        like: a carry to begin with, whose structure a saved one gets; needed where it has records.

    Returns:
        The `Run`: its state, history, memories, and why it stopped.

    Raises:
        InvalidArgument: an argument is not what it should be.
        RunMismatch: the run that is to go on was begun with something else.
        TreeMismatch: the carry that was saved is not like `like`.

    >>> from functrain import data
    >>> rows = data.loader(data.ArrayDataset((torch.ones(6, 1), torch.ones(6))), data.sequential(2))
    >>> def step(total, batch):
    ...     return total + batch.input.sum(), {"rows": batch.input.sum()}
    >>> run = loop(step, torch.tensor(0.0), key=random.key(0), train=rows, epochs=2)
    >>> run.state, run.history["train/rows"]
    (tensor(12.), [2.0, 2.0])
    """
    callbacks = in_order(callbacks)
    _check_no_step_events(callbacks)
    check_backend(jit, chunk)
    training, validations = source(train, "train", plain=True), sources(valid, plain=True, steps=valid_steps)
    if bool(validations) != (evaluate is not None):
        raise InvalidArgument("pass valid and evaluate together: the batches, and the function that evaluates one")
    if isinstance(state, Saved):
        options = dict(train=training, valid=validations, evaluate=evaluate, like=like)
        state = run_from(step, state, callbacks, options)
    key = _key_of(state, key)
    going_on = state if isinstance(state, Run) else None
    plan = make_plan(training, validations, epochs, steps, callbacks, going_on)
    if going_on is not None and going_on.finished:
        return going_on
    carry = state if going_on is None else going_on.state
    device, donate = _device(carry), is_donated(carry)
    phases = {"train": _own_phase(training, step, step, callbacks, "train", jit, chunk, donate)}
    for name, one in validations.items():
        phases[name] = _own_phase(one, evaluate, _evaluating(evaluate), callbacks, "valid", jit, chunk)
    task = Task(callbacks, phases, lambda state, batches: state, lambda state: {}, device)
    return carry_out(task, begin_run(state, plan, key, callbacks, (training, *validations.values())))


def _key_of(state: Any, key: Tensor | None) -> Tensor:
    if not isinstance(state, Run):
        if key is None:
            raise InvalidArgument("key must be a random key, such as random.key(0), for the loaders' orders and draws")
        return random.check_key(key)
    if key is not None and not torch.equal(random.check_key(key), state.key):
        raise RunMismatch(
            f"the run to go on with was begun with the key {state.key.tolist()}, and now the key {key.tolist()} is "
            "passed; leave key out, or pass run.state to begin a new run"
        )
    return state.key


def _check_no_step_events(callbacks: tuple[Callback, ...]) -> None:
    for callback in callbacks:
        for event in STEP_EVENTS:
            if callback.handles(event):
                raise InvalidArgument(
                    f"callback {callback.name!r} handles {event!r}, an event inside the step of fit; the step of a "
                    "loop is your own: do it there"
                )


def _device(state: Any) -> torch.device:
    leaves = (leaf for leaf in tree.leaves(state) if isinstance(leaf, Tensor))
    return next((leaf.device for leaf in leaves), torch.device("cpu"))


def _own_phase(
    one: Source,
    owner: Any,
    step: Callable,
    callbacks: tuple[Callback, ...],
    kind: str,
    jit: str | bool,
    chunk: int,
    donate: bool = False,
) -> Phase:
    listening = [c for c in callbacks if kind in c.phases]
    shown = any(c.handles("begin_batch", "after_batch") for c in listening)

    def make() -> Advance:
        stops = Stops()
        return Advance(owner, ("loop", kind), _advancing(step, stops), stops)

    advance = keep(owner, ("loop", kind), make)
    ways = feed(advance, one, donate, shown, jit, chunk)
    return Phase(ways, lambda device: (), lambda tally: tally, lambda run: {})


def _evaluating(evaluate: Any) -> Callable[[Any, Any], Any]:
    def step(state: Any, batch: Any) -> tuple[Any, Any]:
        logs = evaluate(state, batch)
        if not isinstance(logs, Mapping):
            raise InvalidArgument(
                f"evaluate must return logs, a dict of scalars or of Measured by name, got {_describe(logs)}"
            )
        return state, logs

    return step


def _advancing(step: Callable[[Any, Any], Any], stops: Stops) -> Callable[[Carry, Any], Any]:
    """Return the function (carry, batch) -> (carry, logs) or `Stop` around a step of one's own."""

    def advance(carry: Carry, batch: Any) -> Any:
        result = step(carry.state, batch)
        stop = result if isinstance(result, Stop) else None
        state, logs = without_history(_unpack(result, carry.state))
        logs = {} if logs is None else {name: _as_log(name, value) for name, value in logs.items()}
        y = (
            {
                "shown": {n: value_of(v) for n, v in logs.items()},
                "merged": logs,
                "weight": _weight(batch, carry.stop.device),
            }
            if logs
            else None
        )
        if stop is None:
            return tree.evolve(carry, state=state), y
        scope = scope_of(stop, "step")  # of the batch alone, nothing is left to end
        number = 0 if scope == "batch" else stops.number(Stopped(scope, stop.reason, "step", "step"))
        when = torch.as_tensor(stop.when, device=carry.stop.device)
        number = torch.where(when, carry.stop + number, 0)
        return Stop(tree.evolve(carry, state=state, stop=number, done=carry.done + 1), y, when=number > 0)

    return advance


def _unpack(result: Any, before: Any) -> tuple[Any, Any]:
    """Return the carry and the logs that a step returned; the carry has the structure of the one before."""
    pair = (result.carry, result.y) if isinstance(result, Stop) else result
    if type(pair) is not tuple or len(pair) != 2 or not (pair[1] is None or isinstance(pair[1], Mapping)):
        raise InvalidArgument(
            "the step must return (carry, logs), or Stop(carry, logs), with a dict of logs or None, got "
            f"{_describe(result)}"
        )
    if not tree.alike(before, pair[0]):
        tree.check_same(before, pair[0], "the carry that the step returned", "the carry that it was passed")
        raise TreeMismatch(
            f"the carry that the step returned must have the structure of the one that it was passed, "
            f"{_describe(before)}, but it is {_describe(pair[0])}"
        )
    return pair


def _describe(value: Any) -> str:
    if isinstance(value, Stop):
        return f"Stop({_describe(value.carry)}, {_describe(value.y)})"
    if isinstance(value, (tuple, list)) and len(value) < 5:
        return f"a {type(value).__name__} of ({', '.join(_describe(one) for one in value)})"
    return tree.describe(value)


def _as_log(name: str, value: Any) -> Any:
    check_name(name, "the logs of the step")
    if isinstance(value, Measured):
        return value
    try:
        number = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):  # it is no number at all
        number = None
    if number is None or number.dim() != 0 or number.is_complex():
        raise InvalidArgument(
            f"the log {name!r} of the step must be a real scalar or Measured(metric, accumulator), got "
            f"{tree.describe(value)}"
        )
    return number.detach()


def _weight(batch: Any, device: torch.device) -> Tensor:
    weight = getattr(batch, "weight", None)
    if isinstance(weight, Tensor):
        return weight.sum(dtype=torch.float64)
    rows = next((leaf.shape[0] for leaf in tree.leaves(batch) if isinstance(leaf, Tensor) and leaf.dim()), 1)
    return torch.full((), float(rows), dtype=torch.float64, device=device)
