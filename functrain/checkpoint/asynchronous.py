"""Saving beside the training: the value is copied at once, and a thread writes the copy.

The thread sees its copy alone, never a tensor that is in use. A process is not forked while it writes: `os.fork` waits.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import attrs

from functrain.checkpoint.files import as_path, check_info, put
from functrain.checkpoint.folders import Inside, look_into, put_into
from functrain.checkpoint.format.packing import pack
from functrain.checkpoint.format.taking_apart import Parts, take_apart
from functrain.checkpoint.format.writing import check_target
from functrain.errors import CannotSave
from functrain.records import reprs

_writing = threading.Lock()
"""Held while a thread writes, and by who forks."""


def _hold_back_forks() -> None:
    # In the child the lock is held by the thread that forked, which is the one thread that there is.
    os.register_at_fork(before=_writing.acquire, after_in_parent=_writing.release, after_in_child=_writing.release)


_hold_back_forks()


@attrs.frozen(eq=False, repr=False)
class Background:
    """Saves in a thread, one value at a time; opened by `background`.

    What goes wrong in the thread is raised by the next call, whichever it is, or when it is closed.

    Attributes:
        thread: the one thread that writes.
        waiting: what is being written.
        process: the process that opened it.
    """

    thread: ThreadPoolExecutor
    waiting: list[Future] = attrs.field(factory=list)
    process: int = attrs.field(factory=os.getpid)

    __repr__ = reprs.record

    def save(self, path: str | os.PathLike, value: Any, *, info: Mapping[str, Any] | None = None) -> None:
        """Copy a value, and begin to save it to one file, as `checkpoint.save` does."""
        target = as_path(path).absolute()  # the thread may write when the working directory is another one
        parts = self._take_apart(value, info)
        check_target(target)
        self._begin(partial(put, target, pack(parts, info or {}, None, apart=True)))

    def add(
        self,
        folder: str | os.PathLike,
        value: Any,
        *,
        info: Mapping[str, Any] | None = None,
        then: Callable[[Inside], Any] | None = None,
    ) -> None:
        """Copy a value, and begin to save it as the newest of a folder, as `checkpoint.add` does.

        When it is on the disk, the thread calls `then` with what was in the folder before.
        """
        parts = self._take_apart(value, info)
        inside = look_into(as_path(folder).absolute())
        content = pack(parts, info or {}, inside.next, apart=True)

        def write() -> None:
            put_into(inside, content)
            if then is not None:
                then(inside)

        self._begin(write)

    def check(self) -> None:
        """Raise what went wrong in the thread since the last call, if anything; wait for nothing."""
        if self.waiting and self.waiting[0].done():
            self.wait()

    def wait(self) -> None:
        """Wait until everything is on the disk."""
        self._check_process()
        while self.waiting:
            self.waiting.pop(0).result()

    def _take_apart(self, value: Any, info: Any) -> Parts:
        self.wait()  # so there are never more than two copies of what is trained, whatever the disk does
        parts = take_apart(value)
        check_info(info)
        return parts

    def _begin(self, write: Callable[[], Any]) -> None:
        self.waiting.append(self.thread.submit(_write, write))

    def _check_process(self) -> None:
        if self.process != os.getpid():
            raise CannotSave("this was opened in another process; open checkpoint.background() in the one that saves")


def _write(write: Callable[[], Any]) -> None:
    with _writing:
        write()


@contextmanager
def background() -> Iterator[Background]:
    """Open what saves in a thread; when it is closed, everything is on the disk.

    Raises:
        CannotSave, NotSavable: as `save` and `add`, at the next call or when it is closed.

    >>> import tempfile, torch
    >>> from functrain import checkpoint
    >>> x = torch.ones(2)
    >>> with tempfile.TemporaryDirectory() as folder, background() as saving:
    ...     saving.add(folder, {"x": x})
    ...     _ = x.zero_()  # what was saved is what it was
    ...     saving.wait()
    ...     checkpoint.latest(folder).leaves
    {'x': tensor([1., 1.])}
    """
    saving = Background(ThreadPoolExecutor(1, thread_name_prefix="functrain-checkpoint"))
    try:
        yield saving
    except BaseException:
        _finish_quietly(saving)
        raise
    finally:
        saving.thread.shutdown()
    saving.wait()


def _finish_quietly(saving: Background) -> None:
    """Wait for what is being written; what goes wrong there must not hide what went wrong before."""
    for one in saving.waiting:
        one.exception()
    saving.waiting.clear()
