"""One run, one folder: who saves into a folder all along holds it for itself."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from functrain.checkpoint.files import as_path
from functrain.checkpoint.folders import entries, make_folder
from functrain.checkpoint.format.writing import check_writable
from functrain.errors import CannotSave

_held: set[int] = set()
"""The descriptors of the folders that this process holds."""


def _let_go_in_child() -> None:
    # A worker that outlives a killed run must not keep its folder from the run that is started again.
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go_in_child)


@contextmanager
def hold(folder: str | os.PathLike) -> Iterator[Path]:
    """Make a folder unless it is there, see that it can be saved into, and hold it against others who ask so too.

    A process that dies lets go of it.

    Raises:
        CannotSave: it is a file, cannot be written to, or somebody else holds it.
        CorruptFile, NewerFormat: a checkpoint in it cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, hold(f"{folder}/run") as path:
    ...     path.name
    'run'
    """
    path = as_path(folder).absolute()  # it stays the same folder when the working directory becomes another
    make_folder(path)
    check_writable(path)
    entries(path)
    file = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    _held.add(file)
    try:
        _hold(file, path)
        yield path
    finally:
        if file in _held:  # else this is a child, which has closed it
            _held.discard(file)
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)  # at once, whatever a child that was just forked still has open
            os.close(file)


def check_held(path: Path) -> None:
    """Raise `CannotSave` where the folder at a path is none that this process holds: it is another now, or none.

    >>> check_held(Path("nowhere"))
    Traceback (most recent call last):
        ...
    functrain.errors.CannotSave: cannot save into nowhere: the folder that the run is saved into was deleted, moved...
    """
    try:
        here = os.stat(path)
    except OSError:
        here = None
    if here is None or not any(os.path.samestat(here, os.fstat(file)) for file in _held):
        raise CannotSave(
            f"cannot save into {path}: the folder that the run is saved into was deleted, moved or replaced meanwhile; "
            "put it back, or choose another one, and go on with error.run"
        )


def _hold(file: int, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CannotSave(
            f"cannot save into {path}: another callback or another process saves into it; use a folder for each run"
        ) from None
    except OSError:  # this file system has no locks
        return
