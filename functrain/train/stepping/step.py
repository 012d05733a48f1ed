"""The step: a chain of stages, each a pure function from one frozen record to the next, and the whole of training.

    begin_step -> [ forward -> after_pred -> loss -> after_loss ] differentiated
               -> after_grads -> update -> tally -> after_step -> settle

Between the stages stand the callbacks' handlers of the event of that name. All of it is traced and compiled as one.
"""

from collections.abc import Callable, Iterable
from typing import Any

import attrs
import torch
from toolz import compose_left
from torch import Tensor

from functrain import losses, optim, random, tree
from functrain.data import Batch, as_batch
from functrain.dispatch_state import is_plain
from functrain.errors import InvalidArgument
from functrain.metrics import Metric
from functrain.optim.counting import has_updated
from functrain.schedule import Progress
from functrain.train.events import Callback
from functrain.train.learner import Learner, check_learner, metrics_of, schedules
from functrain.train.state import TrainState, progress_of
from functrain.train.stepping.applying import apply_model
from functrain.train.stepping.examples import differentiate_examples, keep_gradients
from functrain.train.stepping.gradients import Stage, compare, differentiate_loss, differentiate_mean, with_parts
from functrain.train.stepping.handlers import handlers
from functrain.train.stepping.weights import without_influence
from functrain.train.stop import Halt, Stops, settle
from functrain.train.tally import Tally, add, check_name, measured_by, sum_up, value_of


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


def train_step(learner: Learner) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, Tensor]]]:
    """Return the pure function (state, batch) -> (state, logs) that trains on one batch.

    The batch is a `Batch`, an (input, target) pair or an (input, target, weight) triple. The logs are scalar tensors:
    "loss", and each metric by name, over this batch. A loss that is not finite shows in the logs; `callbacks.finite`
    stops a fit by it. A batch whose weights are all zero is counted and changes nothing else.

    >>> import torch
    >>> from functrain import losses, nn, optim
    >>> from functrain.train import init
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> batch = torch.ones(4, 3), torch.zeros(4, dtype=torch.int64)
    >>> state, logs = train_step(learner)(init(learner, random.key(0), batch), batch)
    >>> int(state.step), list(logs)
    (1, ['loss'])
    """
    stages, metric = train_stages(learner), measured_by(metrics_of(learner, "train"))

    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Tensor]]:
        done = stages(begin(learner, state, as_batch(batch), metric=metric))
        return done.state, _values(done, done.accumulators)  # which began empty

    return step


def eval_step(learner: Learner) -> Callable[[TrainState, Any], dict[str, Tensor]]:
    """Return the pure function (state, batch) -> logs that evaluates one batch: no gradients and no optimizer.

    >>> import torch
    >>> from functrain import losses, nn, optim
    >>> from functrain.train import init
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> batch = torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)
    >>> eval_step(learner)(init(learner, random.key(0), batch), batch)
    {'loss': tensor(0.6931, dtype=torch.float64)}
    """
    stages, metric = eval_stages(learner), measured_by(metrics_of(learner, "valid"))

    def step(state: TrainState, batch: Any) -> dict[str, Tensor]:
        done = stages(begin(learner, state, as_batch(batch), phase="valid", metric=metric))
        return _values(done, done.accumulators)

    return step


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


def train_stages(learner: Learner, callbacks: Iterable[Callback] = (), stops: Stops | None = None) -> Stage:
    """Return a whole training step as one function from `Step` to `Step`.

    Args:
        learner: what to train.
        callbacks: callbacks, already `in_order`; their step handlers are put between the stages.
        stops: the table in which the handlers' stops are numbered.

    >>> import torch
    >>> from functrain import losses, nn, optim
    >>> from functrain.train import init
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> batch = Batch(torch.ones(4, 3), torch.zeros(4, dtype=torch.int64))
    >>> done = train_stages(learner)(begin(learner, init(learner, random.key(0), batch), batch))
    >>> done.grads["bias"].shape, int(done.state.step)
    (torch.Size([2]), 1)
    """
    check_learner(learner)
    on = handlers(callbacks, "train", stops)
    apply, needs = apply_model(learner.model), learner.optimizer.needs
    after_pred, after_loss, after_grads = on("after_pred"), on("after_loss"), on("after_grads")
    if "examples" in needs:
        graded = differentiate_examples(learner.model, learner.loss, after_pred or after_loss, "loss_scale" in needs)
        after_grads = keep_gradients(after_grads)
    elif after_pred is None and after_loss is None:
        graded = differentiate_mean(apply, learner.loss, "loss_scale" in needs)
    else:  # which may change anything
        stages = _chain(forward(apply), after_pred, compared(learner.loss), mean_loss, after_loss)
        graded = differentiate_loss(stages, "loss_scale" in needs)
    graded = _chain(graded, after_grads)
    return _chain(
        on("begin_step"),
        evaluating(graded) if "evaluate" in needs else graded,
        update(learner.optimizer),
        tally(metrics_of(learner, "train")),
        on("after_step"),
        settle,
    )


def eval_stages(learner: Learner, callbacks: Iterable[Callback] = (), stops: Stops | None = None) -> Stage:
    """Return a whole evaluation step as one function from `Step` to `Step`; the arguments are `train_stages`'.

    >>> import torch
    >>> from functrain import losses, nn, optim
    >>> from functrain.train import init
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> batch = Batch(torch.ones(4, 3), torch.zeros(4, dtype=torch.int64))
    >>> begun = begin(learner, init(learner, random.key(0), batch), batch, phase="valid")
    >>> eval_stages(learner)(begun).prediction.shape
    torch.Size([4, 2])
    """
    check_learner(learner)
    on = handlers(callbacks, "valid", stops)
    return _chain(
        on("begin_step"),
        forward(apply_model(learner.model)),
        on("after_pred"),
        compared(learner.loss),
        on("after_loss"),
        tally(metrics_of(learner, "valid")),
        on("after_step"),
        settle,
    )


def _chain(*stages: Stage | None) -> Stage:
    return compose_left(*(stage for stage in stages if stage is not None))


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


# The stages


def forward(apply: Callable[[Step, Any], tuple[Any, Any]]) -> Stage:
    """Return the stage that applies the model to the batch's input."""

    def stage(step: Step) -> Step:
        prediction, buffers = apply(step, step.state.params)
        return tree.evolve(step, prediction=prediction, buffers=buffers)

    return stage


def compared(loss: Callable[[Any, Any], Any]) -> Stage:
    """Return the stage that compares the prediction with the target; named parts of the loss are logged."""

    def stage(step: Step) -> Step:
        new = compare(loss(step.prediction, step.batch.target), step.batch.weight)
        return tree.evolve(step, losses=new["losses"], logged=with_parts(step, new["parts"]))

    return stage


def mean_loss(step: Step) -> Step:
    """Return the step with its loss for handlers to replace: from here on it is what it is, whatever the losses are."""
    return tree.evolve(step, _loss=step.loss)


def evaluating(graded: Stage) -> Stage:
    """Return the stage that differentiates the loss, and remembers how, for optimizers that look at other parameters.

    What handlers of the differentiated part and of `after_grads` do to the loss and the gradients is done there too;
    what else they return is dropped.
    """

    def stage(step: Step) -> Step:
        def evaluate(params: Any) -> tuple[Tensor, Any]:
            # Clones in a trace, for inside of a loop or a choice no gradient within another takes what is closed over.
            here, at = (step, params) if is_plain() else tree.clone((step, params))
            there = graded(tree.evolve(here, state=tree.evolve(here.state, params=at)))
            return there.loss, there.grads

        return tree.evolve(graded(step), evaluate=evaluate)

    return stage


def update(optimizer: optim.Transform) -> Stage:
    """Return the stage that turns gradients into updates and adds them to the parameters.

    A batch of no weight asks for no change: parameters, buffers, optimizer state and the count of updates stay.
    """

    def stage(step: Step) -> Step:
        state, weight = step.state, step.batch.weight
        if weight is None:
            return tree.evolve(step, state=_update(optimizer, step), evaluate=None, examples=None)
        counts = (weight != 0).any()
        if is_plain() and counts.device.type == "cpu":
            after = _update(optimizer, step) if counts else state
        else:
            after = tree.map(lambda new, old: torch.where(counts, new, old), _update(optimizer, step), state)
        return tree.evolve(step, state=after, evaluate=None, examples=None)

    return stage


def _update(optimizer: optim.Transform, step: Step) -> TrainState:
    state = step.state
    params, opt_state = optim.step(
        optimizer, step.grads, state.opt_state, state.params, _context(step, optimizer.needs)
    )
    happened = has_updated(optimizer, state.opt_state, opt_state)  # None where each call makes an update
    more = 1 if happened is None else happened
    return tree.evolve(state, params=params, buffers=step.buffers, opt_state=opt_state, updates=state.updates + more)


def _context(step: Step, needs: tuple[str, ...]) -> optim.Context:
    at, mass = step.progress, losses.mass(step.losses, step.batch.weight)
    needed = {name: getattr(step, name) for name in needs}
    return optim.Context(at.position, at.updates, at.epoch, step.begun[0].step, weight=mass, **needed)


def tally(metrics: dict[str, Metric]) -> Stage:
    """Return the stage that measures the loss and the metrics of the batch, and adds them to the tally."""

    def stage(step: Step) -> Step:
        measured = {name: metric.measure(step.prediction, step.batch.target) for name, metric in metrics.items()}
        values = {"loss": step.losses, **measured}
        added = add(step.metric, step.tally, values, step.batch.weight, step.waits)
        return tree.evolve(step, measured=values, tally=added)

    return stage


def batch_values(step: Step) -> dict[str, Tensor]:
    """Return the values over the batch of a step alone, by name."""
    empty = step.metric.init(step.state.step.device)
    return _values(step, step.metric.add(empty, step.measured, step.batch.weight))


def _values(step: Step, accumulators: Any) -> dict[str, Tensor]:
    return {**step.metric.compute(accumulators), **{name: value_of(log) for name, log in step.logged.items()}}


def hyper_values(learner: Learner, step: Step) -> dict[str, Tensor]:
    """Return the values that the schedules had in a step, by name."""
    device = step.state.step.device
    named = schedules(learner, step.progress)
    for name in step.logged:
        check_name(name, "what the step logs", named)
    return {name: torch.as_tensor(value, dtype=torch.float64, device=device) for name, value in named.items()}
