"""The run: a training run as a value, which handlers look at and change, and from which a loop can go on."""

from collections.abc import Mapping
from html import escape
from typing import Any

import attrs

from functrain import tree
from functrain.records import reprs
from functrain.schedule import Progress
from functrain.train.history import History
from functrain.train.state import TrainState, progress_of
from functrain.train.stop import Stopped


@attrs.frozen(repr=False)
class Plan:
    """What a run was begun with, and what going on with it must be given again.

    Attributes:
        epochs: how many epochs.
        lengths: how many batches an epoch has, by phase: "train", then each validation. None where nobody knows.
        steps: how many training batches in all; an epoch less than full may be the last.
        callbacks: the names of the callbacks, as they are called.
    """

    epochs: int = 1
    lengths: Mapping[str, int | None] = attrs.field(factory=dict)
    steps: int | None = None
    callbacks: tuple[str, ...] = ()

    __repr__ = reprs.record


@attrs.frozen(slots=False, repr=False)
class Cursor:
    """Where a run stands: what comes next.

    Attributes:
        epoch: the epoch, from 0.
        phase: "train", or the name of a validation.
        batch: how many batches of this phase are done.
        event: the host event that comes next, or "step" where begin_batch has been answered; "after_fit" at the end.
        answered: how many callbacks have answered this event already.
    """

    epoch: int = 0
    phase: str = "train"
    batch: int = 0
    event: str = "begin_fit"
    answered: int = 0

    __repr__ = reprs.record


@attrs.frozen(slots=False, repr=False, eq=False)  # a dict of fields makes `tree.evolve` quick
class Run:
    """A training run as a value. Frozen: a handler that wants a change returns `attrs.evolve(run, ...)`.

    `fit` and `loop` return one. `fit(learner, run, ...)` goes on with it as if it had never stopped, and
    `fit(learner, run.state, ...)` begins a new one.

    Attributes:
        state: the training state, or what a step of one's own carries.
        memory: each callback's memory by its name.
        history: the rows of the completed epochs.
        logs: at `after_batch` and `after_chunk` the values of the batches, each with one row a batch; at
            `after_validate` and `after_epoch` the epoch's row: "epoch", "train/loss"..., then "valid/loss"..., and
            each schedule at the value that the epoch's first step used.
        batch: the batch, at `begin_batch` and `after_batch`; None elsewhere.
        stopped: the stop that is under way, or that ended the run before its plan; None for none.
        cursor: where it stands.
        plan: what it was begun with.
        key: the random key of the data; `data.batches(loader, run.key, epoch, batch)` yields the run's batches.
        row: the row of the epoch under way, as far as it goes.
        tally: what the phase under way has measured.
        logged: what its steps have logged, by name.
        notes: what the loop has to say about how it ran.
        point: the run to go on from, where `after_fit` may have made something else of it, and already while it is
            asked; None if it is this one.
    """

    state: Any
    memory: Mapping[str, Any] = attrs.field(factory=dict)
    history: History = History()
    logs: Mapping[str, Any] = attrs.field(factory=dict)
    batch: Any = None
    stopped: Stopped | None = None
    cursor: Cursor = Cursor()
    plan: Plan = Plan()
    key: Any = None
    row: Mapping[str, Any] = attrs.field(factory=dict)
    tally: Any = ()
    logged: Mapping[str, Any] = attrs.field(factory=dict)
    notes: tuple[str, ...] = ()
    point: Any = None

    @property
    def epoch(self) -> int:
        """The epoch, from 0."""
        return self.cursor.epoch

    @property
    def epochs(self) -> int:
        """How many epochs are planned."""
        return self.plan.epochs

    @property
    def phase(self) -> str:
        """The phase under way: "train", or the name of a validation."""
        return self.cursor.phase

    @property
    def step(self) -> int:
        """Batches done in this phase of this epoch; after a chunk, those of the chunk are among them."""
        return self.cursor.batch

    @property
    def steps(self) -> int | None:
        """How many batches this phase has in this epoch."""
        return steps_of(self.plan, self.cursor)

    @property
    def finished(self) -> bool:
        """Whether there is nothing to go on with: its plan is carried out, or a stop of scope "run" has ended it."""
        if self.point is None:
            return False
        return self.point.cursor.event == "after_fit" or (self.stopped is not None and self.stopped.scope == "run")

    @property
    def progress(self) -> Progress:
        """How far the run is: position, updates, and the exact float epoch."""
        if isinstance(self.state, TrainState):
            return progress_of(self.state)
        total, length, done = self.plan.steps, self.plan.lengths.get("train"), batches_done(self)
        return Progress(done / total if total else 0.0, done, done / length if length else 0.0)

    def __repr__(self) -> str:
        """Return the table, and where the run stands or why it stopped."""
        return "\n".join([repr(self.history), *self._end()])

    def _repr_html_(self) -> str:
        return self.history._repr_html_() + "".join(f"<p>{escape(line)}</p>" for line in self._end())

    def _end(self) -> list[str]:
        end = "finished" if self.stopped is None and self.finished else f"in epoch {self.epoch + 1} of {self.epochs}"
        return [str(self.stopped or end), *self.notes]

    def __eq__(self, other: object) -> bool:
        """Return whether all of it is the same by `tree.equal`: dtypes, shapes and values, and NaN equals NaN."""
        return tree.equal(vars(self), vars(other)) if isinstance(other, Run) else NotImplemented

    __hash__ = None  # pyright: ignore[reportAssignmentType]


def batches_done(run: Run) -> int:
    """Return how many training batches of its plan a run has done.

    >>> batches_done(Run(state=None, plan=Plan(2, {"train": 5}), cursor=Cursor(epoch=1, batch=3)))
    8
    """
    cursor = run.cursor
    before = cursor.epoch * (run.plan.lengths.get("train") or 0)
    if cursor.phase == "train" and cursor.event not in ("after_epoch", "after_fit"):
        return before + cursor.batch
    return before + (steps_of(run.plan, Cursor(cursor.epoch)) or 0)


def steps_of(plan: Plan, cursor: Cursor) -> int | None:
    """Return how many batches the phase of a cursor has; the last epoch may be less than full.

    >>> steps_of(Plan(2, {"train": 5}, steps=7), Cursor(epoch=1))
    2
    """
    length = plan.lengths.get(cursor.phase)
    if cursor.phase != "train" or plan.steps is None or length is None:
        return length
    return min(length, plan.steps - cursor.epoch * length)
