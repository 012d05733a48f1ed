"""Ctrl-C: held back while memory is being overwritten, and at once everywhere else.

A compiled step puts the new state into the memory of the old one. An exception in the middle of it, or before its
result is bound to a name, would leave neither. So while such a call runs SIGINT is noted, and raised when the result is
there.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from functrain import tree
from functrain.errors import DonatedValueUsed


class Interruption:
    """Whether SIGINT is held back now, and whether one came meanwhile: the one thing in `train` that changes in place.

    Attributes:
        holding: whether a call runs whose result is not bound yet.
        pending: the arguments of the signal that came meanwhile, or None.
    """

    def __init__(self, earlier: Callable[..., Any] | None = None) -> None:
        self.holding = False
        self.pending: Any = None
        self._earlier = earlier

    def handle(self, *signal_and_frame: Any) -> None:
        """Answer SIGINT: later if one can wait, and at once for a second one."""
        if self.holding and self.pending is None:
            self.pending = signal_and_frame
        else:
            self._call(signal_and_frame)

    def hold(self) -> None:
        """Begin to hold SIGINT back."""
        self.holding = True

    def release(self) -> None:
        """Stop holding SIGINT back, and answer the one that came meanwhile."""
        self.holding = False
        if self.pending is not None:
            pending, self.pending = self.pending, None
            self._call(pending)

    def _call(self, signal_and_frame: tuple) -> None:
        if self._earlier is not None:
            self._earlier(*signal_and_frame)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Take over SIGINT in the main thread, and put the earlier handler back afterwards.

    Elsewhere Python raises no KeyboardInterrupt, and where SIGINT is ignored or not Python's there is nothing to hold.

    >>> with interruptible() as interruption:
    ...     interruption.hold()
    ...     interruption.release()
    """
    earlier = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(earlier):
        yield Interruption()
        return
    interruption = Interruption(earlier)
    signal.signal(signal.SIGINT, interruption.handle)
    try:
        yield interruption
    finally:
        interruption.holding = False
        signal.signal(signal.SIGINT, earlier)
        if interruption.pending is not None:  # the call raised by itself, and this one came meanwhile
            interruption.release()


def carry_run(error: BaseException, run: Any, task: Any = None) -> None:
    """Put the run at the last boundary on what was raised, as `error.run`, unless one from further inside is there.

    That of another task gives way: a fit inside a handler has raised it, or one object is raised in several fits.

    >>> error = ValueError("bad")
    >>> carry_run(error, "the run")
    >>> error.run
    'the run'
    """
    if carried(error, task) is not None:
        return
    vars(error).update(run=run, _task=task)
    if is_lost(run):
        error.add_note("the state was being overwritten when this was raised, and is lost")


def carried(error: BaseException | None, task: Any = None) -> Any:
    """Return the run of a task that an error carries, or None.

    >>> carried(ValueError("bad")) is None
    True
    """
    attributes = {} if error is None else vars(error)
    return attributes.get("run") if attributes.get("_task") is task else None


def is_lost(run: Any) -> bool:
    """Return whether the memory of a run's state has been overwritten.

    >>> from functrain.train.run import Run
    >>> is_lost(Run(state=None))
    False
    """
    try:
        for leaf in tree.leaves(getattr(run, "state", None)):
            getattr(leaf, "shape", None)
    except DonatedValueUsed:
        return True
    return False
