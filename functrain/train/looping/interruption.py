"""Signals: Ctrl-C is held back while memory is being overwritten; and signals may be noted, to stop by them.

A compiled step puts the new state into the memory of the old one. An exception in the middle of it, or before its
result is bound to a name, would leave neither. So while such a call runs SIGINT is noted, and raised when the result is
there. Everywhere else it comes at once. What changes in place in `train` is here: whether a signal came.
"""

import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from functrain import tree
from functrain.errors import DonatedValueUsed, InvalidArgument


class Interruption:
    """Whether SIGINT is held back now, and whether one came meanwhile.

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
    try:
        try:
            signal.signal(signal.SIGINT, interruption.handle)
            yield interruption
        finally:
            interruption.holding = False
            signal.signal(signal.SIGINT, earlier)
    finally:  # again, for Ctrl-C may have come into the first time
        interruption.holding = False
        signal.signal(signal.SIGINT, earlier)
        if interruption.pending is not None:  # the call raised by itself, and this one came meanwhile
            interruption.release()


class Noted:
    """Signals that are noted instead of acting, until a second one comes.

    Attributes:
        came: the name of the signal that came, such as "SIGTERM"; None before.
        heeded: whether somebody has stopped because of it.
    """

    def __init__(self) -> None:
        self.came: str | None = None
        self.heeded = False
        self._earlier: dict[int, Any] = {}

    def take_over(self, numbers: Iterable[int]) -> None:
        """Note these signals from now on."""
        for number in numbers:
            self._earlier[number] = signal.signal(number, self._handle)

    def give_back(self) -> None:
        """Put the earlier handlers back."""
        for number, earlier in self._earlier.items():
            signal.signal(number, earlier)

    def _handle(self, number: int, frame: Any) -> None:
        if self.came is None:
            self.came = signal.Signals(number).name
            return
        earlier = self._earlier[number]
        if callable(earlier):
            earlier(number, frame)
        elif earlier == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


@contextmanager
def note_signals(numbers: Iterable[int]) -> Iterator[Noted]:
    """Note signals, and put the earlier handlers back afterwards; warn of one that nobody has heeded.

    Raises:
        InvalidArgument: this is not the main thread, the one thread in which Python handles signals; or a handler is
            not Python's, and could not be put back.

    >>> with note_signals([signal.SIGTERM]) as signals:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     signals.heeded = True
    ...     print(signals.came)
    SIGTERM
    """
    numbers = tuple(numbers)
    if threading.current_thread() is not threading.main_thread():
        raise InvalidArgument(
            "signals come in the main thread alone, and this fit runs in another one; run it in the main thread, or "
            "stop it by a callback of its own that looks at a threading.Event"
        )
    foreign = [signal.Signals(number).name for number in numbers if signal.getsignal(number) is None]
    if foreign:
        raise InvalidArgument(f"{foreign[0]} has a handler that is not Python's, which could not be put back")
    signals = Noted()
    try:
        signals.take_over(numbers)
        yield signals
    finally:
        signals.give_back()
    if signals.came is not None and not signals.heeded:
        warnings.warn(f"{signals.came} came when the fit was over, and has done nothing; send it again", stacklevel=2)


def carry_run(error: BaseException, run: Any, task: Any = None) -> None:
    """Put the run at the last boundary on what was raised, as `error.run`, unless one from further inside is there.

    That of another task gives way: a fit inside a handler has raised it, or one object is raised in several fits.

    >>> error = ValueError("bad")
    >>> carry_run(error, "the run")
    >>> error.run
    'the run'
    """
    if run_of(error, task) is not None:
        return
    vars(error).update(run=run, _task=task)
    if is_lost(run):
        error.add_note("the state was being overwritten when this was raised, and is lost")


def run_of(error: BaseException | None, task: Any = None) -> Any:
    """Return the run of a task that an error carries, or None.

    >>> run_of(ValueError("bad")) is None
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
