"""A moment of a run: the state, the batch and the key of a step, as they were; and a run that goes on from there."""

from collections.abc import Callable
from typing import Any

import attrs
from torch import Tensor

from functrain import random, tree
from functrain.engine import Stop
from functrain.errors import InvalidArgument
from functrain.time_travel.pasts import GUEST, Past, gone_through, guest, taking_part, without_guest
from functrain.train import Run, TrainState
from functrain.train.run import batches_done


@attrs.frozen(repr=False)
class Moment:
    """A run just before a step.

    Attributes:
        step: the step, from 0: how many batches were done before.
        state: the state before it.
        batch: the batch that it takes.
        key: its random key, as `Step.key`; None in a loop of one's own, which has no such.
        run: the run, with which `fit` goes on as it did.
    """

    step: int
    state: Any
    batch: Any
    key: Tensor | None
    run: Run

    def __repr__(self) -> str:
        return f"Moment(before step {self.step}: epoch {self.run.epoch + 1}, batch {self.run.step})"


def replay(past: Past, step: int) -> Moment:
    """Return the moment before a step: its state, batch and key, bit for bit as they were.

    The run is gone through from the nearest start, a batch at a time, in this process or a new one.

    Args:
        past: the run, see `past`.
        step: the step, from 0, as in the record's column "step".

    Raises:
        InvalidArgument: the run has no such step, or it cannot be reached from where the past begins.
        NoCheckpoint: there is no checkpoint.
        RunMismatch, TreeMismatch: the run was begun with something else than is passed.

    >>> import torch
    >>> from functrain import data, losses, nn, optim, train
    >>> from functrain.time_travel import past
    >>> rows = data.ArrayDataset((torch.ones(8, 3), torch.zeros(8, dtype=torch.int64)))
    >>> learner = train.Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> state = train.init(learner, random.key(0), rows[:1])
    >>> before = past(learner, state=state, train=data.loader(rows, data.shuffled(2)), epochs=2)
    >>> moment = replay(before, 5)
    >>> moment, int(moment.state.step)
    (Moment(before step 5: epoch 2, batch 1), 5)
    >>> after, _ = train.train_step(learner)(moment.state, moment.batch)  # the step again
    """

    def begin_batch(run: Run) -> Stop:
        return Stop(run, scope="fit", reason="there", when=batches_done(run) == step)

    result = gone_through(past, step, guest({"begin_batch": begin_batch}))
    if result.stopped is None or result.stopped.callback != GUEST:
        end = "" if result.stopped is None else f": {result.stopped}"
        raise InvalidArgument(f"the run takes no step {step}; it ended after {batches_done(result)} batches{end}")
    run = without_guest(result.point)
    key = random.fold_in(run.state.key, run.state.step) if isinstance(run.state, TrainState) else None
    return Moment(step, run.state, run.batch, key, _to_go_on(past, run))


def _looks_at_batches(past: Past) -> bool:
    return any("train" in c.phases and c.handles("begin_batch", "after_batch") for c in taking_part(past))


def _to_go_on(past: Past, run: Run) -> Run:
    """Return the run with its batch where a callback has answered it, and without where it comes in a chunk again."""
    cursor = run.cursor
    if _looks_at_batches(past):
        return attrs.evolve(run, cursor=attrs.evolve(cursor, answered=len(run.plan.callbacks)))
    return attrs.evolve(run, batch=None, cursor=attrs.evolve(cursor, answered=0))


def fork(past: Past, step: int, edit: Callable[[Run], Run]) -> Run:
    """Return a run that leaves another one before a step, with something changed; `fit` goes on with it.

    Args:
        past: the run, see `past`.
        step: the step before which it is changed.
        edit: the run as it was -> the run to go on with, with another state, memory or history; where a callback
            handles begin_batch or after_batch also with another batch.

    Raises:
        InvalidArgument: the edit returns no run, or changes what cannot be changed.
        TreeMismatch: it returns a state of another structure.

    Otherwise as `replay`.

    >>> import torch
    >>> from functrain import data, losses, nn, optim, train
    >>> from functrain.time_travel import past
    >>> rows = data.ArrayDataset((torch.ones(8, 3), torch.zeros(8, dtype=torch.int64)))
    >>> learner = train.Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> state = train.init(learner, random.key(0), rows[:1])
    >>> options = dict(train=data.loader(rows, data.shuffled(2)), epochs=2)
    >>> halved = lambda run: attrs.evolve(
    ...     run, state=attrs.evolve(run.state, params=tree.map(lambda p: p / 2, run.state.params))
    ... )
    >>> run = fork(past(learner, state=state, **options), 5, halved)
    >>> train.fit(learner, run, **options).finished
    True
    """
    run = replay(past, step).run
    edited = edit(run)
    if not isinstance(edited, Run):
        raise InvalidArgument(f"edit must return a Run, as attrs.evolve(run, ...) does, got {type(edited).__name__}")
    for name in ("cursor", "plan", "key", *(() if _looks_at_batches(past) else ("batch",))):
        if getattr(edited, name) is not getattr(run, name):
            hint = "; a begin_batch handler can replace a batch" if name == "batch" else ""
            raise InvalidArgument(f"edit may change the state, the memory and the history, and it changed {name}{hint}")
    tree.check_same(run.state, edited.state, "the state that edit returned", "the state of the run")
    return edited
