"""The step: a chain of stages, each a pure function from one frozen record to the next, and the whole of training.

    begin_step -> [ forward -> after_pred -> loss -> after_loss ] differentiated
               -> after_grads -> update -> tally -> after_step -> settle

Between the stages stand the callbacks' handlers of the event of that name. All of it is traced and compiled as one.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import attrs
from toolz import compose_left
from torch import Tensor

from functrain import losses, nn, optim, random, tree
from functrain.data import Batch, as_batch
from functrain.dispatch_state import is_plain
from functrain.engine.transforms.gradients import differentiate, pull_back
from functrain.optim.transform import has_updated, moved
from functrain.schedule import Progress
from functrain.train.events import Callback
from functrain.train.learner import Learner
from functrain.train.signals import Halt, Signals, handlers, settle
from functrain.train.state import TrainState, progress
from functrain.train.tally import Tally, added, computed, empty_tally, measured


@tree.node
class Step:
    """What one step knows; each stage returns it with more filled in, and a handler may replace any of it.

    Attributes:
        state: the training state; `update` replaces it.
        batch: the batch.
        memory: the memories of the callbacks with step handlers, by name.
        tally: the `Tally` of the phase so far; the stage `tally` adds this batch to it.
        progress: how far the run is before this step.
        phase: "train" or "valid".
        prediction: the model's output, after `forward`.
        buffers: the model's new buffers, after `forward`; `update` puts them into the state.
        losses: one value per target, after `loss`.
        loss: their weighted mean, a scalar, or what a handler of `after_loss` replaced it by. It is differentiated.
        grads: the gradients by the parameters.
        measured: the losses and what each metric measures of the examples, by name, after `tally`.
        halt: the stop that a handler signalled, or None.
    """

    state: TrainState
    batch: Batch
    memory: dict[str, Any]
    tally: Tally
    progress: Progress
    phase: str = tree.static(default="train")
    prediction: Any = None
    buffers: Any = None
    losses: Any = None
    _loss: Any = attrs.field(default=None, alias="loss")
    grads: Any = None
    measured: Any = None
    halt: Halt | None = None

    @property
    def loss(self) -> Any:
        """The weighted mean of the losses, computed when it is looked at; or what a handler replaced it by."""
        if self._loss is not None or self.losses is None:
            return self._loss
        return losses.reduce(self.losses, self.batch.weight)

    @property
    def key(self) -> Tensor:
        """The random key of this step, `fold_in(state.key, state.step)`; fold in a name of your own before drawing."""
        return random.fold_in(self.state.key, self.state.step)


Stage = Callable[[Step], Step]


def train_step(learner: Learner) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, Tensor]]]:
    """Return the pure function (state, batch) -> (state, logs) that trains on one batch.

    The batch is a `Batch` or an (input, target) pair. The logs are scalar tensors: "loss", and each metric by name,
    over this batch. A loss that is not finite shows in the logs; `callbacks.finite` stops a fit by it.

    >>> import torch
    >>> from functrain import losses, nn, optim
    >>> from functrain.train import init
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> batch = torch.ones(4, 3), torch.zeros(4, dtype=torch.int64)
    >>> state, logs = train_step(learner)(init(learner, random.key(0), batch), batch)
    >>> int(state.step), list(logs)
    (1, ['loss'])
    """
    stages = train_stages(learner)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Tensor]]:
        done = stages(begin(learner, state, as_batch(batch)))
        return done.state, computed(learner, done.tally)

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
    stages = eval_stages(learner)

    def step(state: TrainState, batch: Any) -> dict[str, Tensor]:
        return computed(learner, stages(begin(learner, state, as_batch(batch), phase="valid")).tally)

    return step


def train_stages(learner: Learner, callbacks: Iterable[Callback] = (), signals: Signals | None = None) -> Stage:
    """Return a whole training step as one function from `Step` to `Step`.

    Args:
        learner: what to train.
        callbacks: callbacks, already `ordered`; their step handlers are put between the stages.
        signals: the table in which the handlers' stops are numbered.

    >>> import torch
    >>> from functrain import losses, nn, optim
    >>> from functrain.train import init
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> batch = Batch(torch.ones(4, 3), torch.zeros(4, dtype=torch.int64))
    >>> done = train_stages(learner)(begin(learner, init(learner, random.key(0), batch), batch))
    >>> done.grads["bias"].shape, int(done.state.step)
    (torch.Size([2]), 1)
    """
    on = handlers(callbacks, "train", signals)
    after_pred, after_loss = on("after_pred"), on("after_loss")
    if after_pred is None and after_loss is None:
        graded = differentiated_mean(learner.model, learner.loss)
    else:  # which may change anything
        inner = _chain(forward(learner.model), after_pred, compare(learner.loss), mean_loss, after_loss)
        graded = differentiated(inner)
    return _chain(
        on("begin_step"),
        graded,
        on("after_grads"),
        update(learner.optimizer),
        tally(learner),
        on("after_step"),
        settle,
    )


def eval_stages(learner: Learner, callbacks: Iterable[Callback] = (), signals: Signals | None = None) -> Stage:
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
    on = handlers(callbacks, "valid", signals)
    return _chain(
        on("begin_step"),
        forward(learner.model),
        on("after_pred"),
        compare(learner.loss),
        on("after_loss"),
        tally(learner),
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
    tallied: Tally | None = None,
) -> Step:
    """Return the record that the first stage takes.

    `memory` holds the memories of the callbacks, and `tallied` the `Tally` to go on with; both begin empty.
    """
    so_far = empty_tally(learner, state.step.device) if tallied is None else tallied
    # Few look at the progress, and reading its numbers takes longer than a small layer. A trace drops what nobody uses.
    at = Progress.late(partial(progress, state)) if is_plain() else progress(state)
    return Step(state, batch, memory or {}, so_far, at, phase)


def forward(model: nn.Model) -> Stage:
    """Return the stage that applies the model to the batch's input."""

    def stage(step: Step) -> Step:
        state = step.state
        prediction, buffers = model.apply(state.params, state.buffers, step.batch.input, _mode(step))
        return tree.evolve(step, prediction=prediction, buffers=buffers)

    return stage


def _mode(step: Step) -> nn.Mode:
    if step.phase != "train":
        return nn.evaluation(step.batch.weight)
    # The step's key is folded only by the layers that draw from it.
    return nn.Mode(True, step.state.key, step.progress, step.batch.weight, path=(step.state.step,))


def compare(loss: Callable[[Any, Any], Tensor]) -> Stage:
    """Return the stage that compares the prediction with the target."""

    def stage(step: Step) -> Step:
        return tree.evolve(step, losses=loss(step.prediction, step.batch.target))

    return stage


def mean_loss(step: Step) -> Step:
    """Return the step with its loss for handlers to replace: from here on it is what it is, whatever the losses are."""
    return tree.evolve(step, _loss=step.loss)


def differentiated(inner: Stage) -> Stage:
    """Return the stage that runs the inner stages and differentiates their loss by the parameters."""

    def stage(step: Step) -> Step:
        def loss_of(params: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
            begun = tree.evolve(step, state=tree.evolve(step.state, params=params))
            old, after = vars(begun), inner(begun)
            changed = {name: value for name, value in vars(after).items() if value is not old[name]}
            # The state holds the parameters that are being differentiated; it must not leave this function.
            changed.pop("state", None)
            return after.loss, changed

        (_, changed), grads = differentiate(loss_of, (step.state.params,), has_aux=True)
        return tree.evolve(step, **changed, grads=grads)

    return stage


def differentiated_mean(model: nn.Model, loss: Callable[[Any, Any], Tensor]) -> Stage:
    """Return `differentiated(_chain(forward(model), compare(loss), mean_loss))`, in a fraction of the time.

    Nobody looks at the steps in between, so there are none; and the mean needs no place in the graph.
    """

    def stage(step: Step) -> Step:
        state, batch, mode = step.state, step.batch, _mode(step)

        def losses_of(params: dict[str, Any]) -> tuple[Tensor, Tensor | float, Any]:
            prediction, buffers = model.apply(params, state.buffers, batch.input, mode)
            values = loss(prediction, batch.target)
            known = {"prediction": prediction, "buffers": buffers, "losses": values}
            return values, losses.shares(values, batch.weight), known

        known, grads = pull_back(losses_of, state.params)
        return tree.evolve(step, **known, grads=grads)

    return stage


def update(optimizer: optim.Transform) -> Stage:
    """Return the stage that turns gradients into updates and adds them to the parameters."""

    def stage(step: Step) -> Step:
        state, context = step.state, optim.Context.late(partial(_context, step))
        params, opt_state = moved(optimizer, step.grads, state.opt_state, state.params, context)
        happened = has_updated(optimizer, state.opt_state, opt_state)
        made = state.updates + (1 if happened is None else happened)
        after = tree.evolve(state, params=params, buffers=step.buffers, opt_state=opt_state, updates=made)
        return tree.evolve(step, state=after)

    return stage


def _context(step: Step) -> optim.Context:
    at, weight = step.progress, step.batch.weight
    total = float(step.losses.shape[0]) if weight is None else weight.sum()
    return optim.Context(at.position, at.updates, at.epoch, step.state.step, step.state.key, step.loss, total)


def tally(learner: Learner) -> Stage:
    """Return the stage that measures the loss and the metrics of the batch, and adds them to the tally."""

    def stage(step: Step) -> Step:
        values = measured(learner, step.losses, step.prediction, step.batch.target)
        return tree.evolve(step, measured=values, tally=added(learner, step.tally, values, step.batch.weight))

    return stage


def batch_logs(learner: Learner, step: Step) -> dict[str, Tensor]:
    """Return the values over the batch of a step alone, by name."""
    empty = empty_tally(learner, step.state.step.device)
    return computed(learner, added(learner, empty, step.measured, step.batch.weight))
