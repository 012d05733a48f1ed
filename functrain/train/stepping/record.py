"""The record of one step: what its stages take and return, how it begins, and what is read from it."""

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import losses, optim, random, tree
from functrain.data import Batch
from functrain.errors import InvalidArgument
from functrain.metrics import Metric
from functrain.schedule import Progress
from functrain.train.learner import Learner, metrics_of, schedules
from functrain.train.state import TrainState, progress_of
from functrain.train.stepping.weights import without_influence
from functrain.train.stop import Halt
from functrain.train.tally import Tally, check_name, measured_by, sum_up, value_of


@tree.node
class Step:
    """What one step knows; each stage returns it with more filled in, and a handler may replace any of it.

    Attributes:
        state: the training state; `update` replaces it.
        batch: the batch, in which rows of zero weight have been replaced by one that counts.
        memory: the memories of the callbacks with step handlers, by name.
        tally: what the phase has measured so far; the stage `tally` adds this batch to it.
        begun: the state, memories and tally before this step.
        phase: "train" or "valid".
        metric: the loss and the metrics of this phase, as one.
        waits: whether the tally may let a batch wait for later ones.
        prediction: the model's output, after `forward`.
        buffers: the model's new buffers, after `forward`; `update` puts them into the state.
        losses: one value per example or element, after `loss`.
        loss: their weighted mean, a scalar, or what a handler of `after_loss` replaced it by. It is differentiated.
        grads: the gradients by the parameters.
        measured: the losses and what each metric measures of the examples, by name, after `tally`.
        logged: the values that `log` added, by name.
        halt: the stop that a handler signalled, or None.
        evaluate: params -> (loss, gradients) of this batch, between `after_grads` and `update`, for optimizers that
            need it; None for others.
        examples: the gradients of the examples, there too, for optimizers that need them.
    """

    state: TrainState
    batch: Batch
    memory: dict[str, Any]
    tally: Tally
    begun: tuple[TrainState, dict[str, Any], Tally]
    phase: str = tree.static(default="train")
    metric: Metric = tree.static(default=None)
    waits: bool = tree.static(default=False)
    prediction: Any = None
    buffers: Any = None
    losses: Any = None
    _loss: Any = attrs.field(default=None, alias="loss")
    grads: Any = None
    measured: Any = None
    logged: dict[str, Any] = attrs.field(factory=dict)
    halt: Halt | None = None
    evaluate: Callable[[Any], tuple[Tensor, Any]] | None = tree.static(default=None)
    examples: optim.Examples | None = None
    _progress: Progress | None = attrs.field(default=None, alias="progress")

    @property
    def loss(self) -> Any:
        """The weighted mean of the losses, computed when it is looked at; or what a handler replaced it by."""
        if self._loss is not None or self.losses is None:
            return self._loss
        return losses.weighted_mean(self.losses, self.batch.weight)

    @property
    def key(self) -> Tensor:
        """The random key of this step, `fold_in(state.key, state.step)`; fold in a name of your own before drawing."""
        state = self.begun[0]
        return random.fold_in(state.key, state.step)

    @property
    def progress(self) -> Progress:
        """How far the run was before this step, by both counts."""
        return progress_of(self.begun[0]) if self._progress is None else self._progress

    @property
    def loss_scale(self) -> Tensor:
        """By what the loss of this step is multiplied before it is differentiated, for optimizers that need it."""
        return optim.loss_scale(self.state.opt_state)

    @property
    def accumulators(self) -> Any:
        """What the phase has measured so far: the accumulators of "loss" and of each metric, by name."""
        return sum_up(self.metric, self.tally).added


def begin(
    learner: Learner,
    state: TrainState,
    batch: Batch,
    phase: str = "train",
    memory: dict[str, Any] | None = None,
    so_far: Tally | None = None,
    metric: Metric | None = None,
    waits: bool = False,
) -> Step:
    """Return the record that the first stage takes.

    `memory` holds the memories of the callbacks, and `so_far` the tally to go on with; both begin empty. `metric`
    spares making the learner's metrics one each time.
    """
    metric = measured_by(metrics_of(learner, phase)) if metric is None else metric
    so_far = Tally(metric.init(state.step.device)) if so_far is None else so_far
    memory = {} if memory is None else memory
    at = progress_of(state) if phase == "train" else None  # once, for the model and the optimizer
    begun = (state, memory, so_far)
    return Step(state, without_influence(batch), memory, so_far, begun, phase, metric, waits, progress=at)


def log(step: Step, name: str, value: Any) -> Step:
    """Return the step with a value of this batch added to what the records and the history show.

    A handler of any step event returns it. The history shows the mean over the batches by their weights, as
    "train/name".

    Args:
        step: the step.
        name: a name that is no metric's.
        value: a scalar tensor or a number.

    Raises:
        InvalidArgument: the name is taken or is no string, or the value is no scalar.
        DuplicateName: the name is that of a column of every record, or of a hyperparameter on a schedule.

    >>> import torch
    >>> from functrain import losses, nn, optim
    >>> from functrain.train import init
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> batch = Batch(torch.ones(4, 3), torch.zeros(4, dtype=torch.int64))
    >>> step = begin(learner, init(learner, random.key(0), batch), batch)
    >>> log(step, "answer", 42.0).logged
    {'answer': tensor(42., dtype=torch.float64)}
    """
    check_name(name, "log")
    taken = {*step.tally.added, *step.logged}
    if name in taken:
        raise InvalidArgument(f"log: the name {name!r} is taken; this step has logged or measures {sorted(taken)}")
    number = torch.as_tensor(value, device=step.state.step.device)
    if number.dim() != 0 or number.is_complex():
        raise InvalidArgument(f"log: the value of {name!r} must be a real scalar, got {tree.describe(value)}")
    return tree.evolve(step, logged={**step.logged, name: number.detach().double()})


# What is read from it


def batch_values(step: Step) -> dict[str, Tensor]:
    """Return the values over the batch of a step alone, by name."""
    empty = step.metric.init(step.state.step.device)
    return values_of(step, step.metric.add(empty, step.measured, step.batch.weight))


def values_of(step: Step, accumulators: Any) -> dict[str, Tensor]:
    """Return the values that accumulators have, and what the step has logged, by name."""
    return {**step.metric.compute(accumulators), **{name: value_of(log) for name, log in step.logged.items()}}


def hyper_values(learner: Learner, step: Step) -> dict[str, Tensor]:
    """Return the values that the schedules had in a step, by name."""
    device = step.state.step.device
    named = schedules(learner, step.progress)
    for name in step.logged:
        check_name(name, "what the step logs", named)
    return {name: torch.as_tensor(value, dtype=torch.float64, device=device) for name, value in named.items()}
