"""One run, one folder: who saves into a folder all along holds it for itself."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from functrain.checkpoint.files import as_path
from functrain.checkpoint.folders import entries, make_folder
from functrain.checkpoint.format.descriptors import Opened, close, nothing_opened, open_into, surely
from functrain.checkpoint.format.writing import check_writable
from functrain.errors import CannotSave

_held: list[Opened] = []
"""Where the descriptors of the folders stand that this process holds."""


def _let_go_in_child() -> None:
    # A worker that outlives a killed run must not keep its folder from the run that is started again.
    while _held:
        close(_held.pop())


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
    place = nothing_opened()
    with surely(partial(_let_go, place)):
        _held.append(place)
        _hold(open_into(place, path, os.O_RDONLY | os.O_DIRECTORY), path)
        yield path


def _let_go(place: Opened) -> None:
    """Let go of a folder, unless that was done, as in a child."""
    for file in place[1:]:
        with suppress(OSError):
            # At once, whatever a child that was just forked still has open.
            fcntl.flock(file, fcntl.LOCK_UN)  # pyright: ignore[reportArgumentType]
    close(place)
    with suppress(ValueError):
        _held.remove(place)  # or another one that is closed: they are equal


def check_held(path: Path) -> None:
    """Raise `CannotSave` where the folder at a path is none that this process holds: it is another now, or none.

    >>> check_held(Path("nowhere"))
    Traceback (most recent call last):
        ...
    functrain.errors.CannotSave: cannot save into nowhere: the folder that the run is saved into was deleted, moved...
    """
    if not any(_is_at(path, file) for place in list(_held) for file in place[1:]):
        raise CannotSave(
            f"cannot save into {path}: the folder that the run is saved into was deleted, moved or replaced meanwhile; "
            "put it back, or choose another one, and go on with error.run"
        )


def _is_at(path: Path, file: int | None) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.stat(file))  # pyright: ignore[reportArgumentType]
    except OSError:  # there is none, or another thread has let go of its own
        return False


def _hold(file: int, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CannotSave(
            f"cannot save into {path}: another callback or another process saves into it; use a folder for each run"
        ) from None
    except OSError:  # this file system has no locks
        return
