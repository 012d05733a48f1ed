"""A folder of checkpoints: `add` one, look at them, restore the `latest`, `keep` some and delete the others.

What is in a folder is read from its files each time, never remembered, so that a script that is started again, or two
scripts, see the same.
"""

import math
import os
import re
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from functrain import arguments
from functrain.checkpoint.files import NOTHING, as_path, check_info, check_machine, outline, restore
from functrain.checkpoint.format.packing import Content, pack
from functrain.checkpoint.format.taking_apart import take_apart
from functrain.checkpoint.format.writing import LEFT, delete_unless_locked, sync_folder, write
from functrain.errors import CannotSave, InvalidArgument, NoCheckpoint
from functrain.records import reprs

_NAME = re.compile(r"checkpoint-(\d{8,})\.safetensors")


@attrs.frozen(repr=False)
class Entry:
    """A checkpoint in a folder.

    Attributes:
        path: its file.
        number: its number in the folder, from 1; the newest has the largest.
        info: what was written beside the value, numbers and strings by name.
        time: when it was saved, UTC.
        size: the bytes of its tensors.
    """

    path: str
    number: int
    info: Mapping[str, Any]
    time: str
    size: int

    __repr__ = reprs.record


def add(folder: str | os.PathLike, value: Any, *, info: Mapping[str, Any] | None = None) -> Path:
    """Save a value as the newest checkpoint of a folder, and return its file.

    Args:
        folder: the folder; it is made if it is not there, in a folder that is.
        value: as in `save`.
        info: numbers and strings by name to be written beside it, such as {"step": 400, "valid/loss": 0.3}.

    Raises:
        NotSavable: something in the value cannot be saved; the message names it by dotted path.
        CannotSave: the folder is none, or cannot be written to, or another process saves into it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [add(folder, {"n": n}, info={"step": n}).name for n in range(2)]
    ['checkpoint-00000001.safetensors', 'checkpoint-00000002.safetensors']
    """
    parts, info = take_apart(value), check_info(info)
    inside = look_into(as_path(folder))
    put_into(inside, pack(parts, info, inside.next))
    return inside.path_of_next


@attrs.frozen
class Inside:
    """What is in a folder that is saved into, by names alone.

    Attributes:
        folder: the folder.
        members: the names of the checkpoints, oldest first.
        next: the number of the next one.
        left: the names of temporary files, which a process writes, or left when it was killed.
    """

    folder: Path
    members: list[str]
    next: int
    left: list[str]

    @property
    def path_of_next(self) -> Path:
        """Where the next one will stand."""
        return self.folder / f"checkpoint-{self.next:08d}.safetensors"


def look_into(folder: Path) -> Inside:
    """Return what is in a folder that is to be saved into; it is made unless it is there.

    Raises:
        CannotSave: it is none, cannot be made, or cannot be looked into.

    >>> look_into(Path("nowhere/at/all"))
    Traceback (most recent call last):
        ...
    functrain.errors.CannotSave: cannot save into nowhere/at/all: there is no folder nowhere/at; make it first
    """
    try:
        listed = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        make_folder(folder)
        listed = []
    except OSError as error:
        raise CannotSave(f"cannot save into {folder}: {os.strerror(error.errno or 0).lower()}") from error
    numbered = sorted((int(match[1]), name) for name in listed if (match := _NAME.fullmatch(name)))
    members = [name for _, name in numbered if _is_file(folder / name)]
    left = [name for name in listed if name.startswith(".checkpoint-") and name.endswith(LEFT)]
    return Inside(folder, members, numbered[-1][0] + 1 if numbered else 1, left)


def _is_file(path: Path) -> bool:
    """Whether a name in a folder is a file's. One deleted since counts: who opens it looks into the folder anew."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return True


def put_into(inside: Inside, content: Content) -> None:
    """Write the next checkpoint of a folder, and sweep away what killed processes left there; see `add`."""
    check_machine(inside.folder)
    for name in inside.left:
        delete_unless_locked(inside.folder / name)
    write(inside.path_of_next, content, replace=False)


def make_folder(folder: Path) -> None:
    """Make a folder unless it is there, or raise `CannotSave`.

    >>> make_folder(Path("."))
    """
    try:
        if folder.is_dir():
            return
        if os.path.lexists(folder):
            raise CannotSave(
                f"cannot save into {folder}: it is a file, not a folder; delete it, or choose another name"
            )
        folder.mkdir()
        sync_folder(folder.parent)
    except FileNotFoundError:
        raise CannotSave(f"cannot save into {folder}: there is no folder {folder.parent}; make it first") from None
    except FileExistsError:  # another process made it just now
        make_folder(folder)
    except OSError as error:
        if isinstance(error, CannotSave):
            raise
        raise CannotSave(f"cannot make the folder {folder}: {os.strerror(error.errno or 0).lower()}") from error


def entries(folder: str | os.PathLike) -> tuple[Entry, ...]:
    """Return the checkpoints of a folder, oldest first; none for a folder that is not there.

    Links, temporary files and files of other names are none. The data is not read.

    Raises:
        CorruptFile, NewerFormat: one of them cannot be read; the message names it.
        NoCheckpoint: the folder is a file, or cannot be looked into.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = add(folder, 3, info={"step": 400})
    ...     [(entry.number, entry.info) for entry in entries(folder)]
    [(1, {'step': 400})]
    """
    return _looked_at_again(lambda: _entries(as_path(folder)))


def _entries(folder: Path) -> tuple[Entry, ...]:
    members = []
    for path in _files(folder):
        saved = outline(path)
        number = saved.number or 0  # one that `save` wrote, and somebody renamed
        members.append(Entry(str(path), number, saved.info, saved.time, saved.size))
    return tuple(sorted(members, key=lambda entry: (entry.number, entry.path)))


MOST_LOOKS = 100
"""How often a folder is looked into in which, each time, a checkpoint is deleted before it is read."""


def _looked_at_again(look: Callable[[], Any]) -> Any:
    """Return what looking into a folder gives, though a run that saves into it deletes its older checkpoints."""
    for _ in range(MOST_LOOKS):
        with suppress(NoCheckpoint):  # a newer one is there by now
            return look()
    return look()


def _files(folder: Path) -> list[Path]:
    try:
        # `os.scandir` would hold the folder open, and warn where Ctrl-C comes between its opening and its `with`
        listed = os.listdir(folder)
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        raise NoCheckpoint(f"{folder} is a file, not a folder of checkpoints") from None
    except OSError as error:
        raise NoCheckpoint(f"cannot look into {folder}: {os.strerror(error.errno or 0).lower()}") from error
    return [folder / name for name in listed if _NAME.fullmatch(name) and _is_file(folder / name)]


def latest(folder: str | os.PathLike, like: Any = NOTHING) -> Any:
    """Return the newest checkpoint of a folder, None where there is none, so that `latest(folder) or state` reads well.

    Args:
        folder: the folder; it need not be there.
        like: as in `restore`.

    Raises:
        CorruptFile, NewerFormat: the newest cannot be read. It is not passed over in silence: delete it to go on from
            the one before.
        TreeMismatch: it has another structure than `like`.
        NoCheckpoint: the folder is a file, or cannot be looked into.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     before, path = latest(folder), add(folder, {"n": 3})
    ...     before, latest(folder).leaves
    (None, {'n': 3})
    """
    return _looked_at_again(lambda: _latest(as_path(folder), like))


def _latest(folder: Path, like: Any) -> Any:
    members = _entries(folder)
    return restore(members[-1].path, like) if members else None


def keep(folder: str | os.PathLike, last: int, best: int = 0, by: str = "valid/loss", mode: str = "min") -> list[Path]:
    """Delete all checkpoints of a folder but the newest and the best, and return which were deleted.

    Args:
        folder: the folder.
        last: how many of the newest stay, at least 1.
        best: how many of the best stay beside them.
        by: the name in `info` by which they are compared; those that lack it, or have NaN, are not among the best.
        mode: "min" when less is better, "max" when more is.

    Raises:
        InvalidArgument: a number or the mode is none of these, or no checkpoint has such a value.
        CannotSave: one cannot be deleted.
        CorruptFile, NewerFormat: one cannot be read; then none is deleted.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = [add(folder, 0, info={"valid/loss": loss}) for loss in (0.5, 0.1, 0.3, 0.2)]
    ...     [path.name for path in keep(folder, last=1, best=1)]
    ['checkpoint-00000001.safetensors', 'checkpoint-00000003.safetensors']
    """
    _check_keep(last, best, mode)
    members = entries(folder)
    staying = {entry.path for entry in (*members[-last:], *_best(members, best, by, mode))}
    going = [Path(entry.path) for entry in members if entry.path not in staying]
    _delete(going)
    if going:
        sync_folder(as_path(folder))
    return going


def keep_newest(inside: Inside, last: int) -> None:
    """Delete all checkpoints of a folder but the newest, right after the next one was put into it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = [add(folder, n) for n in range(2)]
    ...     inside = look_into(Path(folder))
    ...     put_into(inside, pack(take_apart(2), {}, inside.next))
    ...     keep_newest(inside, 1)
    ...     [entry.number for entry in entries(folder)]
    [3]
    """
    # Not flushed to the disk, as the next one will be: what comes back after a power cut is deleted then.
    names = [*inside.members, inside.path_of_next.name]
    _delete([inside.folder / name for name in names[:-last]])


def _delete(going: list[Path]) -> None:
    try:
        for path in going:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise CannotSave(f"cannot delete {error.filename}: {os.strerror(error.errno or 0).lower()}") from error


def _check_keep(last: Any, best: Any, mode: Any) -> None:
    for name, number, least in (("last", last, 1), ("best", best, 0)):
        arguments.whole(name, number, least)
    if mode not in ("min", "max"):
        raise InvalidArgument(f"mode must be 'min' or 'max', got {mode!r}")


def _best(members: tuple[Entry, ...], best: int, by: str, mode: str) -> list[Entry]:
    measured = [entry for entry in members if type(entry.info.get(by)) in (int, float)]
    if best and members and not measured:
        names = sorted({name for entry in members for name in entry.info})
        raise InvalidArgument(
            f"by: no checkpoint has a number {by!r} in its info, which has {', '.join(names) or 'nothing'}"
        )
    sign = 1 if mode == "min" else -1
    comparable = [entry for entry in measured if not math.isnan(entry.info[by])]
    # Of two that are equally good, the newer.
    return sorted(comparable, key=lambda entry: (sign * entry.info[by], -entry.number))[:best]
