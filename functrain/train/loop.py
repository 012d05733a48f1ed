"""The loop: a fit is a fold over epochs, an epoch a fold over blocks of batches, and nothing is changed in place."""

from collections.abc import Iterable
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import data, engine, random, tree
from functrain.engine import Stop, fold
from functrain.errors import InvalidArgument
from functrain.train.events import STEP_EVENTS, Callback, Signal, emit, ordered
from functrain.train.execute import Block, Carry, Drive, carried, drive
from functrain.train.learner import Learner, hyperparameters
from functrain.train.preflight import check_batch, check_fits, check_optimizer
from functrain.train.run import Result, Run
from functrain.train.state import TrainState, plan, plan_or_resume, progress
from functrain.train.step import train_step
from functrain.train.tally import computed, empty_tally


def fit(
    learner: Learner,
    state: TrainState,
    *,
    train: data.Loader,
    epochs: int,
    valid: data.Loader | None = None,
    callbacks: Iterable[Callback] = (),
    jit: str | bool = "aten",
    chunk: int = 8,
) -> Result:
    """Train, and return the new state with the history; the given state is left as it is.

    A state that stands inside a run of this very plan (the same epochs over a loader of the same length) goes on from
    its step, with the same numbers as if it had never stopped. Any other state begins a new run.

    Args:
        learner: what to train.
        state: where to begin, from `init` or from an earlier result.
        train: batches to train on.
        epochs: how many times to go through them, at least 1.
        valid: batches to validate on after each epoch; None for no validation.
        callbacks: what takes part, see `Callback`; the order given is kept among equal `order`s.
        jit: the backend that compiles the step, "aten", "inductor" or "cudagraph"; False to run it as plain Python,
            so that prints and breakpoints inside it work.
        chunk: batches in one call, where no callback looks at single batches and, if it is compiled, the dataset is an
            `ArrayDataset`. The results do not depend on it.

    Returns:
        `Result(state, history, stopped, memory)`.

    Raises:
        RunInProgress: the state stands inside a run that was planned otherwise.
        InvalidArgument, DuplicateName: an argument is not what it should be.
        ShapeMismatch, DtypeMismatch, DeviceMismatch, LabelOutOfRange: the data does not fit the model or the loss. The
            first batches are tried before anything is trained.
        TreeMismatch: the state was made for another model or optimizer.

    >>> from functrain import losses, nn, optim
    >>> from functrain.train import init
    >>> rows = data.ArrayDataset((torch.ones(8, 3), torch.zeros(8, dtype=torch.int64)))
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> state = init(learner, random.key(0), rows[:1])
    >>> result = fit(learner, state, train=data.loader(rows, data.sequential(batch_size=4)), epochs=2)
    >>> int(result.state.step), len(result.history), result.stopped
    (4, 2, None)
    """
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise InvalidArgument(f"epochs must be a whole number of at least 1, got {epochs!r}")
    callbacks = ordered(callbacks)
    check_fits(learner, state, train, valid)
    check_optimizer(learner, state)
    training = drive(learner, train, callbacks, "train", jit, chunk)
    validation = None if valid is None else drive(learner, valid, callbacks, "valid", jit, chunk)
    # The loop reuses the buffers of what the step carries; the caller's state and callbacks keep their own.
    state = plan_or_resume(tree.map(torch.clone, state), training.steps, epochs)
    memory = {c.name: tree.map(torch.clone, c.memory) if c.handles(*STEP_EVENTS) else c.memory for c in callbacks}
    phases = ("train",) if valid is None else ("train", "valid")
    run = Run(learner, state, memory, epochs=epochs, steps=training.steps, phases=phases)
    loop = Loop(learner, callbacks, training, validation, Latest(run))
    try:
        run = loop.emit("begin_fit", run)
        if run.signal is None:
            begun = int(run.state.step - state.start) // training.steps
            run, _ = fold(lambda run, epoch: _one_epoch(loop, run, epoch), run, range(begun, epochs))
    except BaseException as error:
        _after_failure(callbacks, loop.latest.run, error)
        raise
    run = _after_fit(callbacks, run)
    return Result(run.state, run.history, run.signal, run.memory)


def _after_fit(callbacks: tuple[Callback, ...], run: Run) -> Run:
    after = emit("after_fit", callbacks, attrs.evolve(run, signal=None))
    return attrs.evolve(after, signal=run.signal)


def _after_failure(callbacks: tuple[Callback, ...], run: Run, error: BaseException) -> None:
    """Let every callback end what it began; what one raises meanwhile must not hide what happened first."""
    error.add_note(f"raised by fit in epoch {run.epoch + 1} of {run.epochs}, phase {run.phase!r}, batch {run.step}")
    for callback in callbacks:
        try:
            run = _after_fit((callback,), run)
        except Exception as another:
            error.add_note(f"then after_fit of callback {callback.name!r} raised {type(another).__name__}: {another}")


@attrs.define
class Latest:
    """The run as it was last seen, for `after_fit` when something raises: the one thing here that changes in place.

    Attributes:
        run: the run after the last block of batches or event.
    """

    run: Run


@attrs.frozen
class Loop:
    """What stays the same throughout a fit.

    Attributes:
        learner: what is trained.
        callbacks: the callbacks, ordered.
        training: how to run over the training batches.
        validation: how to run over the validation batches, or None.
        latest: where the fit stands.
    """

    learner: Learner
    callbacks: tuple[Callback, ...]
    training: Drive
    validation: Drive | None
    latest: Latest

    def emit(self, event: str, run: Run) -> Run:
        """Return the run after the event, with the live state kept apart from handlers that may keep theirs."""
        self.latest.run = run
        listening = [c for c in self.callbacks if event in c.handlers]
        if listening:
            self.latest.run = run = self._told(event, listening, run)
        return run

    def _told(self, event: str, listening: list[Callback], run: Run) -> Run:
        if not (self.training.donates and any(c.keeps_state for c in listening)):
            return emit(event, listening, run)
        copy = tree.map(torch.clone, run.state)
        after = emit(event, listening, attrs.evolve(run, state=copy))
        return attrs.evolve(after, state=run.state if after.state is copy else tree.map(torch.clone, after.state))


def _one_epoch(loop: Loop, run: Run, epoch: int) -> Any:
    run = loop.emit("begin_epoch", attrs.evolve(run, phase="train", epoch=epoch, logs={}))
    run = _train(loop, run)
    if loop.validation is not None and run.signal is None:
        run = _validate(loop, run)
    if run.signal is None:
        now = {name: float(value) for name, value in hyperparameters(loop.learner, progress(run.state)).items()}
        run = loop.emit("after_epoch", attrs.evolve(run, logs={**run.logs, **now}))
        run = attrs.evolve(run, history=run.history + run.logs)
    return (run, None) if run.signal is None else Stop(run)


def _train(loop: Loop, run: Run) -> Run:
    """Return the run after the training half of its epoch, with the epoch's row begun in its logs."""
    steps = loop.training.steps
    run = _phase(loop, run, loop.training, begun=int(run.state.step - run.state.start) - run.epoch * steps)
    row = {"epoch": run.epoch + 1, **_values(loop, run)}
    if run.signal is not None and run.signal.scope == "epoch":
        # What is skipped counts as done: the position goes on with the epochs, and resuming finds the right batch.
        run = attrs.evolve(run, state=attrs.evolve(run.state, step=run.state.start + (run.epoch + 1) * steps))
    return attrs.evolve(_over(run, "batch", "epoch"), logs=row)


def _validate(loop: Loop, run: Run) -> Run:
    """Return the run after the validation of its epoch, with the values added to its row."""
    row = run.logs
    run = loop.emit("begin_validate", attrs.evolve(run, phase="valid", tally=None))
    run = _phase(loop, run, loop.validation, begun=0)
    run = attrs.evolve(run, logs={**row, **_values(loop, run)})
    if run.signal is None:
        run = loop.emit("after_validate", run)
    return attrs.evolve(_over(run, "batch", "epoch", "validate"), phase="train")


def _phase(loop: Loop, run: Run, driver: Drive | None, begun: int) -> Run:
    """Return the run after a fold over the blocks of a phase; as it is when a stop is under way."""
    if run.signal is not None or driver is None:
        return run
    tally = empty_tally(loop.learner, run.state.step.device)
    run = attrs.evolve(run, step=begun, steps=driver.steps, tally=tally)
    key = random.fold_in(run.state.key.cpu(), "data", int(run.state.start))
    blocks = driver.blocks(key, run.epoch, begun)
    run, _ = fold(lambda run, block: _one_block(loop, driver, run, block), run, blocks)
    return attrs.evolve(run, batch=None)


def _one_block(loop: Loop, driver: Drive, run: Run, block: Block) -> Any:
    begun = run.step
    run = tree.evolve(run, batch=block.batch, logs={})
    if block.batch is not None:
        run = loop.emit("begin_batch", run)
    run = _advance(loop, driver, run, block) if run.signal is None else _skip(run)
    run = _over(run, "batch")
    if block.batch is not None and run.signal is None:
        run = _over(loop.emit("after_batch", run), "batch")
    if run.step > begun:
        run = _after_chunk(loop, run)
    loop.latest.run = run
    return (run, None) if run.signal is None else Stop(run)


def _after_chunk(loop: Loop, run: Run) -> Run:
    """Return the run after the event; when a stop is under way, the batches before it are still told of."""
    if run.signal is None:
        return _over(loop.emit("after_chunk", run), "batch")
    return tree.evolve(loop.emit("after_chunk", tree.evolve(run, signal=None)), signal=run.signal)


def _advance(loop: Loop, driver: Drive, run: Run, block: Block) -> Run:
    """Return the run after the steps of a block; this is where training happens."""
    inputs = block.inputs if block.batch is None else (run.batch,)
    traced = {c.name: run.memory[c.name] for c in loop.callbacks if c.handles(*STEP_EVENTS)}
    carry, logs = driver.execute(carried(run.state, traced, run.tally), *inputs)
    run = tree.evolve(
        run,
        state=carry.state,
        memory={**run.memory, **carry.memory},
        tally=carry.tally,
        step=run.step + block.steps,
        logs={} if logs is None else tree.map(lambda rows: rows[: block.steps], logs),
    )
    return _heed(run, driver, carry, run.step - block.steps)


def _heed(run: Run, driver: Drive, carry: Carry, begun: int) -> Run:
    """Return the run with the stop that a step handler signalled, if one did. Only this looks at the device."""
    code = int(carry.signal) if driver.signals.end_more_than_a_batch() else 0
    if code == 0:
        return run
    said, done = driver.signals.table[code - 1], int(carry.batches)
    signal = Signal(said.scope, said.reason, said.callback, said.event, run.epoch, begun + done)
    return tree.evolve(run, step=begun + done, signal=signal, logs=tree.map(lambda rows: rows[:done], run.logs))


def _skip(run: Run) -> Run:
    """Return the run after a batch that a stop at `begin_batch` took out: consumed, if only it was to be ended."""
    if run.phase == "valid" or run.signal is None or run.signal.scope != "batch":
        return run
    return tree.evolve(run, step=run.step + 1, state=tree.evolve(run.state, step=run.state.step + 1))


def _over(run: Run, *scopes: str) -> Run:
    """Return the run without its stop, if what the stop was to end is over."""
    return tree.evolve(run, signal=None) if run.signal is not None and run.signal.scope in scopes else run


def _values(loop: Loop, run: Run) -> dict[str, float]:
    """Return the loss and the metrics of the phase, named as in the history; nothing when the phase was skipped."""
    if run.tally is None:
        return {}
    return {f"{run.phase}/{name}": float(value) for name, value in computed(loop.learner, run.tally).items()}


def evaluate(
    learner: Learner, state: TrainState, loader: data.Loader, jit: str | bool = "aten", chunk: int = 8
) -> dict[str, float]:
    """Return the loss and the metrics over all batches of a loader, as one big batch would give them.

    >>> from functrain import losses, nn, optim
    >>> from functrain.train import init
    >>> rows = data.ArrayDataset((torch.zeros(8, 3), torch.zeros(8, dtype=torch.int64)))
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> state = init(learner, random.key(0), rows[:1])
    >>> round(evaluate(learner, state, data.loader(rows, data.sequential(batch_size=3)))["loss"], 4)
    0.6931
    """
    check_fits(learner, state, loader)
    driver = drive(learner, loader, (), "valid", jit, chunk)
    carry = carried(state, {}, empty_tally(learner, state.step.device))
    blocks = driver.blocks(state.key.cpu(), 0, 0)
    carry, _ = fold(lambda carry, block: driver.execute(carry, *block.inputs), carry, blocks)
    return {name: float(value) for name, value in computed(learner, carry.tally).items()}


def overfit_batch(
    learner: Learner, state: TrainState, batch: Any, steps: int = 100, jit: str | bool = "aten"
) -> tuple[TrainState, dict[str, Tensor]]:
    """Train on one batch again and again, to see that learning works at all.

    Returns the state after `steps` steps and the logs of all of them, each of shape (steps,): the loss should go
    towards zero. If it does not, look for the mistake before training on anything else.

    >>> from functrain import losses, nn, optim
    >>> from functrain.train import init
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=1.0))
    >>> batch = torch.eye(3), torch.tensor([0, 1, 0])
    >>> _, logs = overfit_batch(learner, init(learner, random.key(0), batch), batch)
    >>> bool(logs["loss"][-1] < 0.1)
    True
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InvalidArgument(f"steps must be a whole number of at least 1, got {steps!r}")
    batch = data.as_batch(batch)
    check_batch(learner, state, batch, "batch")
    step = train_step(learner)
    if jit:
        step = engine.jit(step, donate=0, backend=str(jit))
        state = tree.map(torch.clone, state)
    return fold(lambda state, _: step(state, batch), plan(state, steps), range(steps))
