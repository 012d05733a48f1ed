"""Writing a file so that at any moment the old one or the new one is there, whole.

Everything is written to a temporary name beside the target, flushed to the disk, renamed, and the folder flushed too.
The temporary file is locked while it is written, so what a killed process left can be told from what is under way.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import attrs
from torch import Tensor

from functrain.checkpoint.format.descriptors import descriptor, surely
from functrain.checkpoint.format.elements import as_bytes, as_stored
from functrain.checkpoint.format.header import MOST_BYTES, PIECE, START, checksums, encode
from functrain.checkpoint.format.packing import Content
from functrain.errors import CannotSave

LEFT = ".partial"
"""How the name of a temporary file ends, which is left where its process was killed."""

_BESIDE = 2**20
"""From how many bytes on a checksum is computed beside the writing, in a thread."""


def check_target(path: Path) -> None:
    """Raise `CannotSave` unless a checkpoint may be put at a path: nothing is there, or an earlier checkpoint.

    >>> check_target(Path("nowhere/at/all"))
    Traceback (most recent call last):
        ...
    functrain.errors.CannotSave: cannot save nowhere/at/all: there is no folder nowhere/at; make it first
    """
    with _in_words(f"cannot save {path}", "; nothing was overwritten"):
        _check_target(path)


def _check_target(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        reason = "is a file, not a folder" if folder.exists() else None
        raise CannotSave(f"cannot save {path}: " + (f"{folder} {reason}" if reason else _no_folder(folder)))
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode):
        raise CannotSave(f"cannot save {path}: it is a folder; name a file in it")
    if stat.S_ISLNK(status.st_mode):
        raise CannotSave(
            f"cannot save {path}: it is a link, which would be replaced; name what it leads to, or delete it"
        )
    if not stat.S_ISREG(status.st_mode) or not _may_be_replaced(path):
        raise CannotSave(f"cannot save {path}: what is there is no checkpoint; delete it, or choose another name")


def _no_folder(folder: Path) -> str:
    return f"there is no folder {folder}; make it first"


def _may_be_replaced(path: Path) -> bool:
    with descriptor(path, os.O_RDONLY) as file:
        start = os.pread(file, 8 + len(START), 0)
    return not start or start[8:] == START


def check_writable(folder: Path) -> None:
    """Raise `CannotSave` unless files can be made in a folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     check_writable(Path(folder))
    """
    with _in_words(f"cannot save into {folder}"), _temporary(folder / "checkpoint-probe"):
        pass


def write(path: Path, content: Content, replace: bool = True) -> None:
    """Write a checkpoint.

    Args:
        path: where it will stand.
        content: what it holds; checksums of the data that it lacks are added.
        replace: whether an earlier checkpoint at the path is replaced; an error otherwise.

    Raises:
        CannotSave: it cannot be written; what stood there before is as it was.
    """
    if replace:
        check_target(path)
    length = _length_of_header(content)
    if length - 8 > MOST_BYTES:
        raise CannotSave(f"cannot save {path}: its header would have {length} bytes, and {MOST_BYTES} are the most")
    with _in_words(f"cannot save {path}", "; nothing was overwritten"), _temporary(path) as (file, name):
        _write_all(file, content, length)
        os.fsync(file)
        _put(name, path, replace)
        sync_folder(path.parent)


def _length_of_header(content: Content) -> int:
    if content.packed is None:
        return len(encode(content.header))
    return 8 + int.from_bytes(content.packed[:8], "little")


@contextlib.contextmanager
def _in_words(what: str, end: str = "") -> Iterator[None]:
    """Raise as `CannotSave`, in words, what the system refuses."""
    try:
        yield
    except CannotSave:
        raise
    except OSError as error:
        raise CannotSave(f"{what}: {_reason(error)}{end}") from error


def _reason(error: OSError) -> str:
    text = os.strerror(error.errno) if error.errno else str(error)
    hints = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some space",
        errno.EFBIG: "a limit is set on file sizes",
    }
    hint = hints.get(error.errno or 0)
    return text[:1].lower() + text[1:] + (f" ({hint})" if hint else "")


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[tuple[int, Path]]:
    """Open a locked file under a temporary name, which is deleted unless it has been renamed."""
    name = path.with_name(f".{_cut(path.name)}.{secrets.token_hex(8)}{LEFT}")
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW
    with surely(partial(_delete, name)), descriptor(name, flags) as file:
        with contextlib.suppress(OSError):  # some file systems have no locks: then leftovers stay
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_nlink == 0:
            raise CannotSave(f"cannot save {path}: another process swept its temporary file away; save again")
        yield file, name


def _delete(name: Path) -> None:
    with contextlib.suppress(OSError):  # it was renamed; or it cannot be deleted, and is swept away another time
        os.unlink(name)


def sweep(path: Path) -> None:
    """Delete what killed processes left beside a file: its temporary files that nobody writes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     left = Path(folder) / ".a.0123456789abcdef.partial"
    ...     left.touch()
    ...     sweep(Path(folder) / "a")
    ...     left.exists()
    False
    """
    beginning = f".{_cut(path.name)}."
    with contextlib.suppress(OSError):  # a folder may be written to and not listed: then leftovers stay
        for name in os.listdir(path.parent):
            if name.startswith(beginning) and name.endswith(LEFT):
                delete_unless_locked(path.parent / name)


def _cut(name: str) -> str:
    """Return the start of a name, so short that a temporary name can begin with it: names have up to 255 bytes."""
    while len(os.fsencode(name)) > 200:
        name = name[:-1]
    return name


def delete_unless_locked(name: Path) -> None:
    """Delete a temporary file that nobody writes, if that can be done.

    >>> delete_unless_locked(Path("nowhere/.a.0123456789abcdef.partial"))
    """
    with contextlib.suppress(OSError):
        _delete_unless_locked(name)


def _delete_unless_locked(name: Path) -> None:
    with descriptor(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK) as file:
        if stat.S_ISREG(os.fstat(file).st_mode):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name)


def _put(name: Path, path: Path, replace: bool) -> None:
    if replace:
        os.replace(name, path)
        return
    try:
        os.link(name, path)  # unlike a rename it replaces nothing
    except FileExistsError:
        raise CannotSave(f"cannot save {path}: another process has just saved it; use a folder for each run") from None
    except OSError:  # no hard links here
        if os.path.lexists(path):
            raise CannotSave(f"cannot save {path}: something is there already; delete it, or choose another") from None
        os.replace(name, path)


def sync_folder(folder: Path) -> None:
    """Flush to the disk which files a folder has.

    >>> sync_folder(Path("."))
    """
    with descriptor(folder, os.O_RDONLY | os.O_DIRECTORY) as file:
        os.fsync(file)


def _write_all(file: int, content: Content, length: int) -> None:
    """Write the data, and then the header, which has their checksums; until then the file begins with zeros."""
    if content.packed is not None:
        _write_at(file, memoryview(content.packed), 0)
        return
    header, entries = content.header, {}
    _reserve(file, max([length, *(length + entry.begin + entry.nbytes for entry in header.entries.values())]))
    with ThreadPoolExecutor(1) as beside:
        for name, entry in header.entries.items():
            stored = as_stored(content.tensors[name])
            computing = beside.submit(_checksums, stored) if entry.nbytes >= _BESIDE else None
            _write_at(file, as_bytes(stored), length + entry.begin)
            numbers = computing.result() if computing else _checksums(stored)
            entries[name] = attrs.evolve(entry, crc32=numbers)
    _write_at(file, memoryview(encode(attrs.evolve(header, entries=entries))), 0)


def _reserve(file: int, size: int) -> None:
    """Ask for the room that a file will take, in one piece: it is written sooner, and a full disk is seen at once."""
    try:
        getattr(os, "posix_fallocate", lambda *_: None)(file, 0, size)  # macOS has none
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise


def _checksums(stored: Tensor) -> tuple[int, ...]:
    return checksums(as_bytes(stored))  # the tensor is held as long as its memory is looked at


def _write_at(file: int, data: memoryview, place: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(file, data[done : done + PIECE], place + done)
