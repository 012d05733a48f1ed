"""Reading a file that may be anything: nothing is believed before it was checked, and nothing is ever executed."""

import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from functrain.checkpoint.format.descriptors import Opened, close, nothing_opened, open_into, surely
from functrain.checkpoint.format.elements import HUGE, STORED, advise_huge_pages, as_bytes, lay_out
from functrain.checkpoint.format.header import MOST_BYTES, PIECE, START, Entry, Header, looks_like, parse
from functrain.errors import CorruptFile, NewerFormat, NoCheckpoint

_WORKERS = min(4, os.cpu_count() or 1)
_BESIDE = 2**18
"""From how many bytes on a piece is read by a worker."""


@contextmanager
def open_checkpoint(path: Path) -> Iterator[tuple[int, Header, int]]:
    """Open a checkpoint, as its descriptor, its header and where its data begins.

    Raises:
        NoCheckpoint: there is no file.
        CorruptFile: it is none, or was truncated or altered.
        NewerFormat: a newer functrain saved it.
    """
    place = nothing_opened()
    with surely(partial(close, place)), _naming(path):
        file = _open_into(place, path)
        yield (file, *_read_header(file))


def _open_into(place: Opened, path: Path) -> int:
    try:
        file = open_into(place, path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe is not waited for
    except FileNotFoundError:
        raise NoCheckpoint(f"there is no file {path}") from None
    except OSError as error:
        raise NoCheckpoint(f"cannot open {path}: {os.strerror(error.errno or 0)}") from None
    mode = os.fstat(file).st_mode
    if stat.S_ISDIR(mode):
        raise NoCheckpoint(f"{path} is a folder; checkpoint.latest(folder) restores its newest checkpoint")
    if not stat.S_ISREG(mode):
        raise NoCheckpoint(f"{path} is no regular file")
    return file


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the name of the file before the reason why it is refused."""
    try:
        yield
    except (CorruptFile, NewerFormat) as error:
        raise type(error)(f"cannot restore {path}: {error}") from None


def _read_header(file: int) -> tuple[Header, int]:
    size = os.fstat(file).st_size
    length, start = os.pread(file, 8, 0), os.pread(file, len(START), 8)
    if not length.strip(b"\0"):
        raise CorruptFile(f"it is empty, or was not written to its end ({size} bytes)")
    if not START.startswith(start):
        raise CorruptFile(f"it is no checkpoint of functrain; {looks_like(length, start)}")
    expected = int.from_bytes(length, "little")
    if expected > size - 8 or len(start) < len(START):
        raise CorruptFile(
            f"it was truncated: its header should have {expected} bytes, and {max(size - 8, 0)} are there"
        )
    if expected > MOST_BYTES:
        raise CorruptFile(f"its header would have {expected} bytes, and {MOST_BYTES} are the most")
    return parse(length, os.pread(file, expected, 8), size - 8 - expected), 8 + expected


def read_tensors(file: int, header: Header, start: int) -> dict[str, Tensor]:
    """Return the tensors of an open checkpoint by name, each with memory of its own.

    Raises:
        CorruptFile: their data was altered or truncated; the message is the reason alone.
    """
    tensors = {}
    with ThreadPoolExecutor(_WORKERS) as workers:
        waiting = []
        for name, entry in header.entries.items():
            stored = _empty(entry)
            for number in range(len(entry.crc32)):
                piece = (file, stored, start, name, entry, number)
                if entry.nbytes < _BESIDE:
                    _read_piece(*piece)
                else:
                    waiting.append(workers.submit(_read_piece, *piece))
            tensors[name] = stored
        try:
            for one in waiting:
                one.result()
        finally:
            workers.shutdown(cancel_futures=True)
    return {name: _finish(stored, header.entries[name]) for name, stored in tensors.items()}


def _empty(entry: Entry) -> Tensor:
    stored = STORED[entry.dtype]
    tensor = torch.empty((*entry.shape, 2) if stored.pair else entry.shape, dtype=stored.dtype)
    if entry.nbytes >= 2 * HUGE:
        advise_huge_pages(tensor)
    return tensor


def _read_piece(file: int, stored: Tensor, start: int, name: str, entry: Entry, number: int) -> None:
    # The tensor is an argument, so that its memory is there as long as a worker writes to it.
    piece = as_bytes(stored)[number * PIECE : (number + 1) * PIECE]
    place = start + entry.begin + number * PIECE
    done = 0
    while done < len(piece):
        more = os.preadv(file, [piece[done:]], place + done)
        if more == 0:
            raise CorruptFile(f"it was truncated: the data of {name!r} ends early")
        done += more
    if zlib.crc32(piece) != entry.crc32[number]:
        last = place + len(piece)
        raise CorruptFile(f"the data of {name!r} was altered, between the bytes {place} and {last} of the file")


def _finish(stored: Tensor, entry: Entry) -> Tensor:
    if STORED[entry.dtype].pair:
        # Laid out as pairs, because PyTorch copies and views pairs of more dtypes than complex numbers.
        return lay_out(stored, (*(2 * step for step in entry.stride), 1)).view(entry.dtype).squeeze(-1)
    return lay_out(stored, entry.stride).view(entry.dtype)


def meta_tensors(entries: Mapping[str, Entry]) -> dict[str, Tensor]:
    """Return tensors without memory in place of those of a checkpoint, to look at their shapes.

    >>> meta_tensors({"w": Entry(torch.float32, (2, 3), (3, 1), 0, 24)})["w"].shape
    torch.Size([2, 3])
    """
    return {
        name: torch.empty_strided(entry.shape, entry.stride, dtype=entry.dtype, device="meta")
        for name, entry in entries.items()
    }
