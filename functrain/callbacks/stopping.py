"""Callbacks that end a fit before its plan."""

import math
import signal
from collections.abc import Iterable
from typing import Any

import attrs
import torch

from functrain import arguments, tree
from functrain.engine import Stop
from functrain.errors import InvalidArgument
from functrain.train.events import Callback, remember
from functrain.train.looping.interruption import Noted, note_signals
from functrain.train.run import Run
from functrain.train.stepping.record import Step


@tree.node
class Best:
    """The memory of `early_stopping`.

    Attributes:
        value: the best value so far, None before the first epoch.
        epoch: when it was seen, from 0.
        waited: epochs since the last one that improved by more than `min_delta`.
        reference: the value that the next one must improve upon.
        state: the state of the best epoch, or None when it is not to be restored.
    """

    value: float | None = None
    epoch: int = -1
    waited: int = 0
    reference: float | None = None
    state: Any = None


def early_stopping(
    monitor: str = "valid/loss",
    patience: int = 3,
    min_delta: float = 0.0,
    mode: str = "min",
    restore_best: bool = False,
    name: str = "early_stopping",
) -> Callback:
    """Return a callback that ends the run when a value has not improved for some epochs.

    Args:
        monitor: a column of the history, such as "valid/loss".
        patience: epochs without improvement that are allowed, at least 1.
        min_delta: how much better than at the last improvement counts as improved, at least 0. The best epoch is the
            best one even so, by whatever little.
        mode: "min" when less is better, "max" when more is.
        restore_best: whether the fit returns the state of the best epoch instead of the last.
        name: the name of the callback.

    A value that is not a number is no improvement. `run.memory[name]` is a `Best`. The run is finished: a script that
    is started again gets it back as it is. `fit(learner, run.point, ...)` trains on nevertheless, from the state of the
    last epoch, which is in it beside the best one.
    The method is that of Prechelt, "Early Stopping - But When?" (1998).

    >>> early_stopping("valid/accuracy", patience=2, mode="max").memory
    Best()
    """
    arguments.whole("patience", patience)
    if not min_delta >= 0:
        raise InvalidArgument(f"min_delta must be at least 0, got {min_delta!r}")
    if mode not in ("min", "max"):
        raise InvalidArgument(f"mode must be 'min' or 'max', got {mode!r}")

    def better(value: float, than: float | None, by: float) -> bool:
        if than is None:
            return not math.isnan(value)
        return value < than - by if mode == "min" else value > than + by

    def begin_fit(run: Run) -> None:
        check_monitor(run, monitor)

    def after_epoch(run: Run) -> Any:
        value, best = _monitor(run, monitor), run.memory[name]
        improved = better(value, best.reference, min_delta)
        waited, reference = (0, value) if improved else (best.waited + 1, best.reference)
        if better(value, best.value, 0.0):
            best = attrs.evolve(best, value=value, epoch=run.epoch, state=run.state if restore_best else None)
        best = attrs.evolve(best, waited=waited, reference=reference)
        run = remember(run, name, best)
        if waited < patience:
            return run
        reason = f"{monitor} has not improved for {patience} epochs; {_best_so_far(best)}"
        return Stop(run, scope="run", reason=reason)

    def after_fit(run: Run) -> Run | None:
        best = run.memory[name].state
        return None if best is None else attrs.evolve(run, state=best)

    handlers = {"begin_fit": begin_fit, "after_epoch": after_epoch, "after_fit": after_fit}
    return Callback(name, handlers, order=80, memory=Best(), keeps_state=restore_best)


def _best_so_far(best: Best) -> str:
    if best.value is None:
        return "no epoch had a value"
    return f"the best was {best.value:.6g} in epoch {best.epoch + 1}"


def check_monitor(run: Run, monitor: str) -> None:
    """Raise `InvalidArgument` unless a run measures a value of this name.

    >>> from functrain.train.run import Plan
    >>> check_monitor(Run(None, plan=Plan(1, {"train": 5})), "train/loss")
    """
    phase, slash, name = monitor.partition("/")
    phases = list(run.plan.lengths)
    if not slash or not name:
        raise InvalidArgument(
            f"monitor must be a phase and a name, such as 'valid/loss', the phases being {phases}; got {monitor!r}"
        )
    if phase not in phases:
        raise InvalidArgument(
            f"{monitor!r} is not measured in this fit, whose phases are {phases}: pass valid=, or monitor another value"
        )


def _monitor(run: Run, monitor: str) -> float:
    if monitor not in run.logs:
        raise InvalidArgument(f"{monitor!r} was not measured in this epoch, which has {', '.join(run.logs)}")
    return run.logs[monitor]


def finite(gradients: bool = False, name: str = "finite") -> Callback:
    """Return a callback that ends the fit when the loss of a batch is NaN or infinite.

    The batch then leaves no trace in the state, and `run.stopped` says in which epoch and batch it was; the returned
    state and `batch_at(run, train)` reproduce it. The check runs inside the compiled step; the loop waits for its
    answer after each chunk.

    Args:
        gradients: whether to check the gradients too.
        name: the name of the callback.

    >>> finite().phases
    ('train',)
    """

    def after_loss(step: Step) -> Stop:
        return Stop(step, scope="fit", when=~torch.isfinite(step.loss), reason="the loss is not finite")

    def after_grads(step: Step) -> Stop:
        norm = tree.global_norm(step.grads)
        return Stop(step, scope="fit", when=~torch.isfinite(norm), reason="the gradients are not finite")

    handlers = {"after_loss": after_loss, **({"after_grads": after_grads} if gradients else {})}
    return Callback(name, handlers, keeps_state=False)


def stop_on_signal(signals: Iterable[int] = (signal.SIGINT, signal.SIGTERM), name: str = "stop_on_signal") -> Callback:
    """Return a callback that makes a signal a stop: `fit` returns, with a run that goes on to the bit.

    So a cluster that is about to take the machine away (SIGTERM), or a person (Ctrl-C is SIGINT), ends a fit in good
    order: the chunk under way is finished, `run.stopped` names the signal, callbacks end what they began, and
    `fit(learner, run, ...)` goes on later. In validation it stops too. A second signal does what it does without this.
    One that came too late for any stop is warned of when the fit is over. Earlier handlers are put back.

    Args:
        signals: the signals; `signal.SIGUSR1` is what some clusters send ahead.
        name: the name of the callback.

    Raises:
        InvalidArgument: something is no signal, or none that can be handled; or the fit does not run in the main
            thread.

    >>> stop_on_signal().name
    'stop_on_signal'
    """
    numbers = tuple(_signal(number) for number in ((signals,) if isinstance(signals, int) else signals))

    def look(run: Run, noticed: Noted) -> Stop | None:
        if noticed.came is None:
            return None
        noticed.heeded = True
        return Stop(run, scope="fit", reason=f"{noticed.came} came")

    events = ("begin_fit", "begin_epoch", "after_chunk", "begin_validate", "after_validate", "after_epoch")
    options: dict[str, Any] = dict(keeps_state=False, reads_logs=False, resource=lambda run: note_signals(numbers))
    # Last of all, so that whatever comes while the others are at work is heeded at the same event.
    return Callback(name, dict.fromkeys(events, look), order=1000, phases=("train", "valid"), **options)


def _signal(number: Any) -> signal.Signals:
    try:
        one = signal.Signals(number)
    except ValueError:
        raise InvalidArgument(f"signals must be signals, such as signal.SIGTERM, got {number!r}") from None
    if one in (signal.SIGKILL, signal.SIGSTOP):
        raise InvalidArgument(f"signals: {one.name} ends or halts a process at once, and no process can handle it")
    return one
