"""Fit: the loop whose carry is the training state; and what else is done with a learner and batches.

From top to bottom: `fit` makes a plan and a `Task` and carries it out; `evaluate`, `predict` and `overfit_batch` go
over batches by the same steps.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import arguments, data, engine, tree
from functrain.checkpoint import Saved
from functrain.engine import fold
from functrain.errors import InvalidArgument
from functrain.train.checking.padding import check_padded_predictions, check_padding, without_padding
from functrain.train.checking.preflight import (
    check_batch,
    check_device,
    check_optimizer,
    check_source,
    check_state,
    warn_if_nothing_was_trained,
)
from functrain.train.checking.resuming import run_from
from functrain.train.events import Callback, in_order
from functrain.train.fit_phase import phase_of
from functrain.train.learner import Learner, schedules
from functrain.train.looping.chunks import enter, run_chunk
from functrain.train.looping.compiling import check_backend, compile_step, is_donated, keep
from functrain.train.looping.interruption import carry_run
from functrain.train.looping.phase import Task
from functrain.train.looping.places import carry_out
from functrain.train.looping.planning import begin_run, make_plan
from functrain.train.looping.sources import (
    are_batches,
    explaining_inputs,
    open_inputs,
    open_source,
    source,
    sources,
    taking,
)
from functrain.train.run import Plan, Run
from functrain.train.state import TrainState, data_key, plan, progress_of
from functrain.train.stepping.detaching import without_history
from functrain.train.stepping.lending import give_back
from functrain.train.stepping.precision import in_precision
from functrain.train.stepping.step import train_step
from functrain.train.tally import compute_logs, merge_logs


def fit(
    learner: Learner,
    state: TrainState | Run | Saved,
    *,
    train: Any,
    epochs: int | None = None,
    steps: int | None = None,
    valid: Any = None,
    valid_steps: int | str | Mapping[str, Any] | None = None,
    callbacks: Iterable[Callback] = (),
    jit: str | bool = "aten",
    chunk: int = 8,
    compile_shapes: str = "first",
    device: Any = None,
    precision: str | None = None,
) -> Run:
    """Train, and return the run: its state, history, memories, and why it stopped. What is passed stays as it is.

    A state begins a new run, always, with position and updates at 0. A run goes on as if it had never stopped, to the
    bit, and so does one that was saved; train, valid, callbacks, jit and chunk are passed again.

    Args:
        learner: what to train.
        state: where to begin, from `init` or an earlier `run.state`; or the `Run` to go on with; or what
            `checkpoint.restore` or `checkpoint.latest` returned of either.
        train: a `data.Loader`, or a list of batches; or any iterable of them, such as a DataLoader or a generator,
            which begins where it begins when a run goes on, so that this is then no exact resume, and the run's notes
            say so; `valid` too.
        epochs: how many times to go through `train`; or
        steps: how many batches to take in all.
        valid: batches to validate on after each epoch, or several such by name, as in {"clean": a, "noisy": b}.
        valid_steps: how many batches of `valid` to take each time, the first of them; of several by name, one number
            for each or a dict by name. None for all, where the length is known; "all" for what an iterable without a
            length gives until it ends.
        callbacks: what takes part, see `Callback`; the order given is kept among equal `order`s.
        jit: the backend that compiles the step, "aten", "inductor" or "cudagraph"; False to run it as plain Python,
            so that prints and breakpoints inside it work. What was traced is kept with the learner.
        chunk: batches in one call, where no callback looks at single batches and, if it is compiled, the dataset is an
            `ArrayDataset`. The results do not depend on it.
        compile_shapes: what "inductor" compiles: batches of the "first" shape, the others running by "aten"; or "all".
        device: where to train; the state and the batches are moved. None for where they are.
        precision: "bfloat16" or "float16" for the model to compute in where that is safe, as `torch.autocast` does;
            parameters, buffers, loss and updates stay as they are. None for the dtypes as they are.

    Returns:
        The `Run`.

    Raises:
        RunMismatch: the run to go on with was begun with something else.
        InvalidArgument, DuplicateName: an argument is not what it should be.
        ShapeMismatch, DtypeMismatch, DeviceMismatch, LabelOutOfRange: the data does not fit the model or the loss. The
            first batches are tried before anything is trained.
        TreeMismatch: the state was made for another model or optimizer; of what was saved, the message has the paths.
        PaddingCounts: the sampler pads, and some code mixes the rows.

    >>> from functrain import losses, nn, optim, random
    >>> from functrain.train import init
    >>> rows = data.ArrayDataset((torch.ones(8, 3), torch.zeros(8, dtype=torch.int64)))
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> state = init(learner, random.key(0), rows[:1])
    >>> run = fit(learner, state, train=data.loader(rows, data.sequential(batch_size=4)), epochs=2)
    >>> int(run.state.step), len(run.history), run.stopped
    (4, 2, None)
    """
    callbacks, device = in_order(callbacks), check_device(device)
    check_backend(jit, chunk, compile_shapes)
    if isinstance(state, Saved):
        state = run_from(learner, state, callbacks, dict(train=train, device=device, precision=precision))
    going_on = state if isinstance(state, Run) else None
    if going_on is not None and going_on.finished:
        make_plan(source(train, "train"), sources(valid, steps=valid_steps), epochs, steps, callbacks, going_on)
        return going_on
    here = check_state((going_on.point or going_on).state if going_on else state)
    here = _on(device, here)
    plain, learner = learner, in_precision(learner, precision)
    training, validations = source(train, "train", device), sources(valid, device, steps=valid_steps)
    planned = make_plan(training, validations, epochs, steps, callbacks, going_on)
    check_optimizer(learner, here)
    for one in (training, *validations.values()):
        check_source(learner, here, one, callbacks)
        check_padding(plain, here, one, callbacks)

    phases = {"train": phase_of(learner, training, "train", callbacks, jit, chunk, compile_shapes, is_donated(here))}
    for name, one in validations.items():
        phases[name] = phase_of(learner, one, "valid", callbacks, jit, chunk, compile_shapes)
    task = Task(callbacks, phases, _pass_through, lambda state: _row(learner, state), here.step.device)
    if going_on is None:
        begun = _plan(here, planned)
        run = carry_out(task, begin_run(begun, planned, data_key(begun), callbacks))
    else:
        every = (training, *validations.values())
        run = carry_out(task, begin_run(_in(going_on, here), planned, going_on.key, callbacks, every))
    try:
        warn_if_nothing_was_trained(run, callbacks)
    except BaseException as error:  # Ctrl-C, or a warning that is an error
        carry_run(error, run)
        raise
    return run


def _plan(state: TrainState, planned: Plan) -> TrainState:
    begun = plan(state, planned.lengths["train"] or 1, planned.epochs)
    return begun if planned.steps is None else attrs.evolve(begun, end=begun.start + planned.steps)


def _in(run: Run, state: TrainState) -> Run:
    """Return the run with the state to go on with in its place."""
    if run.point is None:
        return attrs.evolve(run, state=state)
    return attrs.evolve(run, point=attrs.evolve(run.point, state=state))


def _pass_through(state: TrainState, batches: int) -> TrainState:
    return tree.evolve(state, step=state.step + batches)


def _row(learner: Learner, state: TrainState) -> dict[str, float]:
    return {name: float(value) for name, value in schedules(learner, progress_of(state)).items()}


# Without training


def evaluate(
    learner: Learner,
    state: TrainState,
    loader: Any,
    jit: str | bool = "aten",
    chunk: int = 8,
    precision: str | None = None,
    device: Any = None,
    steps: int | str | None = None,
) -> dict[str, float]:
    """Return the loss, its named parts and the metrics over all batches, as one big batch would give them.

    After a fit it finds what the fit's validation traced, and traces nothing again.

    Args:
        learner: the learner.
        state: the state to evaluate.
        loader: a `data.Loader`, or any iterable of batches.
        jit: the backend, or False.
        chunk: batches in one call, where the dataset is an `ArrayDataset`.
        precision: as in `fit`.
        device: as in `fit`.
        steps: how many batches to take, the first of them. None for all, where the length is known; "all" for what an
            iterable without a length gives until it ends.

    Returns:
        The values by name, those that the validation of a fit shows as "valid/name".

    >>> from functrain import losses, nn, optim, random
    >>> from functrain.train import init
    >>> rows = data.ArrayDataset((torch.zeros(8, 3), torch.zeros(8, dtype=torch.int64)))
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> state = init(learner, random.key(0), rows[:1])
    >>> round(evaluate(learner, state, data.loader(rows, data.sequential(batch_size=3)))["loss"], 4)
    0.6931
    """
    check_backend(jit, chunk)
    device = check_device(device)
    plain, learner, key = learner, in_precision(learner, precision), data_key(check_state(state))
    state = _on(device, state)
    one = taking(source(loader, "loader", device), steps, "steps")
    check_source(learner, state, one)
    check_padding(plain, state, one, ())
    phase = phase_of(learner, one, "valid", (), jit, chunk)
    carry = enter(state, {}, phase.begin(state.step.device), state.step.device)
    logged: Mapping[str, Any] = {}
    for some in phase.feed.chunks(key, 0, 0, one.length):
        carry, logs = run_chunk(phase.feed, carry, some)
        logged = logged if logs is None else merge_logs(logged, logs["merged"], logs["weight"])
    values = phase.values(Run(state, tally=carry.tally))
    return {**values, **{name: float(value) for name, value in compute_logs(logged).items()}}


def _on(device: Any, state: TrainState) -> TrainState:
    return state if device is None else tree.to(state, device)


def predict(
    learner: Learner,
    state: TrainState,
    inputs: Any,
    jit: str | bool = "aten",
    precision: str | None = None,
    device: Any = None,
    steps: int | str | None = None,
) -> Any:
    """Return the model's predictions, in evaluation mode.

    Args:
        learner: the learner.
        state: the state whose parameters predict.
        inputs: what the model takes, a tensor (n, ...) or a tree of such; or a `Batch` of it; or batches, whose
            predictions are put together in their order: a `data.Loader`, a DataLoader, a generator, or a list of
            pairs, triples or `Batch`es. A batch of these may be an input alone, too: a tensor, a dict, or a list of
            one.
        jit: the backend, or False.
        precision: as in `fit`.
        device: as in `fit`; the predictions are there too.
        steps: of batches, how many to take, as in `evaluate`.

    Returns:
        A tree of tensors with a row for each row of the inputs, whatever its weight. Rows with which a sampler fills
        its last batch up are no rows of the dataset, and have none.

    Raises:
        PaddingCounts: the sampler pads, and the model mixes the rows.
        SourceEnded: there is no batch.

    >>> from functrain import losses, nn, optim, random
    >>> from functrain.train import init
    >>> rows = data.ArrayDataset((torch.zeros(8, 3), torch.zeros(8, dtype=torch.int64)))
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> state = init(learner, random.key(0), rows[:1])
    >>> predict(learner, state, data.loader(rows, data.sequential(3))).shape, predict(learner, state, rows[:5][0]).shape
    (torch.Size([8, 2]), torch.Size([5, 2]))
    """
    check_backend(jit, 1)
    device = check_device(device)
    plain, learner, key = learner, in_precision(learner, precision), data_key(check_state(state))
    state = _on(device, state)

    def apply(params: Any, buffers: Any, x: Any) -> Any:
        return learner.model.apply(params, buffers, x)[0]

    run = keep(learner, ("predict", jit), lambda: compile_step(apply, False, str(jit)) if jit else apply)
    with torch.no_grad():
        if not are_batches(inputs):
            if steps is not None:
                raise InvalidArgument(f"steps counts batches, and inputs are the input of the model; got {steps!r}")
            x = inputs.input if isinstance(inputs, data.Batch) else inputs
            with explaining_inputs(inputs):
                return run(state.params, state.buffers, x if device is None else tree.to(x, device))
        one = taking(source(inputs, "inputs", device, plain=not isinstance(inputs, data.Loader)), steps, "steps")
        check_padded_predictions(plain.model, state, one)
        # A prediction may be a view of its input, whose memory the source may fill with the next one.
        parts = [give_back((run(state.params, state.buffers, x), None), x)[0] for x in open_inputs(one, key)]
    parts[-1] = without_padding(parts[-1], one)
    return tree.map(lambda *some: torch.cat(some), *parts)


def overfit_batch(
    learner: Learner, state: TrainState, batch: Any, steps: int = 100, jit: str | bool = "aten"
) -> tuple[TrainState, dict[str, Tensor]]:
    """Train on one batch again and again, to see that learning works at all.

    Returns the state after `steps` steps and the logs of all of them, each of shape (steps,): the loss should go
    towards zero. If it does not, look for the mistake before training on anything else.

    >>> from functrain import losses, nn, optim, random
    >>> from functrain.train import init
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=1.0))
    >>> batch = torch.eye(3), torch.tensor([0, 1, 0])
    >>> _, logs = overfit_batch(learner, init(learner, random.key(0), batch), batch)
    >>> bool(logs["loss"][-1] < 0.1)
    True
    """
    arguments.whole("steps", steps)
    check_backend(jit, 1)
    batch = data.as_batch(batch)
    check_batch(learner, check_state(state), batch, "batch", train=True)
    step = train_step(learner)
    if jit:
        step = keep(learner, ("overfit", jit), lambda: engine.jit(train_step(learner), donate=0, backend=str(jit)))
        state = tree.clone(state)
    return fold(lambda state, _: without_history(step(state, batch)), plan(state, steps), range(steps))


def batch_at(run: Run, train: Any, valid: Any = None) -> data.Batch:
    """Return the batch at which a run stopped, or raised, or at which it stands: in training or in a validation.

    Args:
        run: what `fit` returned, or what an error carries as `error.run`.
        train: the loader that it was begun with.
        valid: the validation loader, or several by name, as in `fit`; needed where the run stands in a validation.

    Returns:
        The batch as its loader gives it: of a stop, whose `run.stopped` says where it was, that batch, whether it is
        done or not; of what an event after a batch raised, the batch before.

    Raises:
        InvalidArgument: the run stands at no batch, or in a validation that is not passed, or in what is no loader.

    >>> from functrain import random
    >>> from functrain.train.run import Cursor
    >>> loader = data.loader(data.ArrayDataset((torch.arange(6), torch.arange(6))), data.sequential(2))
    >>> batch_at(Run(None, key=random.key(0), cursor=Cursor(1, "train", 2, "step")), loader).target
    tensor([4, 5])
    """
    epoch, phase, batch = _place(run)
    named = {"train": source(train, "train"), **sources(valid)}
    if phase not in named:
        raise InvalidArgument(f"the run stands in the validation {phase!r}: pass valid= as it was passed to fit")
    one = named[phase]
    if not one.begins_anywhere:
        raise InvalidArgument(
            f"{phase} must be a Loader or a list, whose batches can be reached; got {type(one.batches).__name__}"
        )
    if batch is None or batch >= len(one.batches):
        event = (run.point or run).cursor.event
        raise InvalidArgument(f"the run stands at no batch, but in epoch {epoch + 1} before {event!r}, phase {phase!r}")
    return next(open_source(one, run.key, epoch, batch, None))


_AFTER = {"begin_batch": 0, "step": 0, "after_batch": 1, "after_chunk": 1}
"""The events at a batch, and how many batches the cursor is past it."""


def _place(run: Run) -> tuple[int, str, int | None]:
    """Return the epoch, the phase and the batch at which a run stands; None for no batch."""
    if run.stopped is not None:
        return run.stopped.epoch, run.stopped.phase, run.stopped.batch
    cursor = (run.point or run).cursor
    batch = cursor.batch - _AFTER[cursor.event] if cursor.event in _AFTER else None
    return cursor.epoch, cursor.phase, batch
