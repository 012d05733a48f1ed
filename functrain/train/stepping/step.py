"""The step: a chain of stages, each a pure function from one frozen record to the next, and the whole of training.

    begin_step -> [ forward -> after_pred -> loss -> after_loss ] differentiated
               -> after_grads -> update -> tally -> after_step -> settle

Between the stages stand the callbacks' handlers of the event of that name. All of it is traced and compiled as one.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from toolz import compose_left
from torch import Tensor

from functrain import losses, optim, tree
from functrain.data import as_batch
from functrain.dispatch_state import is_plain
from functrain.metrics import Metric
from functrain.optim.counting import has_updated
from functrain.train.events import Callback
from functrain.train.learner import Learner, check_learner, metrics_of
from functrain.train.state import TrainState
from functrain.train.stepping.applying import apply_model
from functrain.train.stepping.examples import differentiate_examples, keep_gradients
from functrain.train.stepping.gradients import Stage, compare, differentiate_loss, differentiate_mean, with_parts
from functrain.train.stepping.handlers import handlers
from functrain.train.stepping.lending import Lent, check_unwritten, lend
from functrain.train.stepping.record import Step, begin, values_of
from functrain.train.stop import Stops, settle
from functrain.train.tally import add, measured_by


def train_step(learner: Learner) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, Tensor]]]:
    """Return the pure function (state, batch) -> (state, logs) that trains on one batch.

    The batch is a `Batch`, an (input, target) pair or an (input, target, weight) triple. The logs are scalar tensors:
    "loss", and each metric by name, over this batch. A loss that is not finite shows in the logs; `callbacks.finite`
    stops a fit by it. A batch whose weights are all zero is counted and changes nothing else.

    >>> import torch
    >>> from functrain import losses, nn, optim, random
    >>> from functrain.train import init
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> batch = torch.ones(4, 3), torch.zeros(4, dtype=torch.int64)
    >>> state, logs = train_step(learner)(init(learner, random.key(0), batch), batch)
    >>> int(state.step), list(logs)
    (1, ['loss'])
    """
    stages, metric = train_stages(learner), measured_by(metrics_of(learner, "train"))

    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Tensor]]:
        lent = _lend(batch)
        done = stages(begin(learner, state, as_batch(batch), metric=metric))
        check_unwritten(lent, "its batch")
        return done.state, values_of(done, done.accumulators)  # which began empty

    return step


def eval_step(learner: Learner) -> Callable[[TrainState, Any], dict[str, Tensor]]:
    """Return the pure function (state, batch) -> logs that evaluates one batch: no gradients and no optimizer.

    >>> import torch
    >>> from functrain import losses, nn, optim, random
    >>> from functrain.train import init
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> batch = torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)
    >>> eval_step(learner)(init(learner, random.key(0), batch), batch)
    {'loss': tensor(0.6931, dtype=torch.float64)}
    """
    stages, metric = eval_stages(learner), measured_by(metrics_of(learner, "valid"))

    def step(state: TrainState, batch: Any) -> dict[str, Tensor]:
        lent = _lend(batch)
        done = stages(begin(learner, state, as_batch(batch), phase="valid", metric=metric))
        check_unwritten(lent, "its batch")
        return values_of(done, done.accumulators)

    return step


def _lend(batch: Any) -> Lent:
    return lend(batch if is_plain() else ())  # a trace sees a write by itself


def train_stages(learner: Learner, callbacks: Iterable[Callback] = (), stops: Stops | None = None) -> Stage:
    """Return a whole training step as one function from `Step` to `Step`.

    Args:
        learner: what to train.
        callbacks: callbacks, already `in_order`; their step handlers are put between the stages.
        stops: the table in which the handlers' stops are numbered.

    >>> import torch
    >>> from functrain import losses, nn, optim, random
    >>> from functrain.train import init
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> batch = as_batch((torch.ones(4, 3), torch.zeros(4, dtype=torch.int64)))
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
        stages = _chain(forward(apply), after_pred, compare_losses(learner.loss), mean_loss, after_loss)
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
    >>> from functrain import losses, nn, optim, random
    >>> from functrain.train import init
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> batch = as_batch((torch.ones(4, 3), torch.zeros(4, dtype=torch.int64)))
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
        compare_losses(learner.loss),
        on("after_loss"),
        tally(metrics_of(learner, "valid")),
        on("after_step"),
        settle,
    )


def _chain(*stages: Stage | None) -> Stage:
    return compose_left(*(stage for stage in stages if stage is not None))


# The stages


def forward(apply: Callable[[Step, Any], tuple[Any, Any]]) -> Stage:
    """Return the stage that applies the model to the batch's input."""

    def stage(step: Step) -> Step:
        prediction, buffers = apply(step, step.state.params)
        return tree.evolve(step, prediction=prediction, buffers=buffers)

    return stage


def compare_losses(loss: Callable[[Any, Any], Any]) -> Stage:
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
