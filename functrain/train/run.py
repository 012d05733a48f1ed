"""The run: what host callbacks look at and return; and what a fit gives back."""

from collections.abc import Mapping
from typing import Any

import attrs

from functrain.schedule import Progress
from functrain.train.events import Signal
from functrain.train.history import History
from functrain.train.state import progress


@attrs.frozen(slots=False)  # a dict of fields makes `tree.evolve` quick
class Run:
    """Where a fit stands. Frozen: a handler that wants a change returns `attrs.evolve(run, ...)`.

    Attributes:
        learner: what is trained.
        state: the training state.
        memory: each callback's memory by its name.
        phase: "train" or "valid".
        epoch: the epoch, from 0.
        epochs: how many are planned.
        step: batches done in this phase of this epoch; after a chunk, those of the chunk are among them.
        steps: how many batches this phase has.
        phases: the phases of an epoch: "train", and "valid" where there is something to validate on.
        batch: the batch, at `begin_batch` and `after_batch`; None elsewhere.
        logs: at `after_batch` and `after_chunk` the values of the batches, each with one row a batch; from
            `begin_validate` on the epoch's row: "epoch" and "train/loss"..., then "valid/loss"..., and at
            `after_epoch` the hyperparameters too.
        tally: the `Tally` of this phase so far, with the accumulators of the loss and the metrics; None before it.
        history: the rows of the completed epochs.
        signal: the stop that is under way, or None.
    """

    learner: Any
    state: Any
    memory: Mapping[str, Any] = attrs.field(factory=dict)
    phase: str = "train"
    epoch: int = 0
    epochs: int = 1
    step: int = 0
    steps: int = 0
    phases: tuple[str, ...] = ("train",)
    batch: Any = None
    logs: Mapping[str, Any] = attrs.field(factory=dict)
    tally: Any = None
    history: History = History()
    signal: Signal | None = None

    @property
    def progress(self) -> Progress:
        """How far the run is: position, updates, and the exact float epoch."""
        return progress(self.state)


def remember(record: Any, name: str, memory: Any) -> Any:
    """Return a `Run` or `Step` in which the callback of this name has this memory.

    >>> remember(Run(None, None), "counter", 3).memory
    {'counter': 3}
    """
    return attrs.evolve(record, memory={**record.memory, name: memory})


@attrs.frozen
class Result:
    """What `fit` returns.

    Attributes:
        state: the trained state; pass it to `evaluate`, or to `fit` again to train on.
        history: a table with a row an epoch.
        stopped: the signal that ended the fit before its plan, or None.
        memory: each callback's last memory by its name, such as `memory["record"]`.
    """

    state: Any
    history: History
    stopped: Signal | None
    memory: Mapping[str, Any]
