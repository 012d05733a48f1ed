"""The IDX format of MNIST's files: a big-endian header of type and dimensions, then the values.

Described by Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits".
"""

import gzip
import hashlib
import os
import zlib
from pathlib import Path

import torch
from torch import Tensor

from functrain.errors import CorruptFile

_TYPES = {
    0x08: torch.uint8,
    0x09: torch.int8,
    0x0B: torch.int16,
    0x0C: torch.int32,
    0x0D: torch.float32,
    0x0E: torch.float64,
}


def read_idx(path: str | os.PathLike, md5: str | None = None) -> Tensor:
    """Return the array in an IDX file, gzipped or not (its first bytes tell).

    Args:
        path: the file.
        md5: the MD5 that the uncompressed bytes must have, in hexadecimal digits; None to check the format alone.

    Returns:
        A tensor of the file's shape and type, in this machine's byte order.

    Raises:
        CorruptFile: the file is truncated, altered, or no IDX file.
        FileNotFoundError: there is no such file.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "two")
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 7]))
    ...     read_idx(path)
    tensor([5, 7], dtype=torch.uint8)
    """
    content = read_uncompressed(Path(path))
    if md5 is not None:
        check_md5(content, md5, path)
    kind, shape, begin = _header(content, path)
    count = _product(shape)
    expected = begin + count * kind.itemsize
    if len(content) != expected:
        raise CorruptFile(
            f"{path}: {'truncated' if len(content) < expected else 'bytes follow the data'}: its header says "
            f"{str(kind).removeprefix('torch.')}{shape}, {expected:,} bytes in all, got {len(content):,}"
        )
    if count == 0:
        return torch.empty(shape, dtype=kind)
    values = torch.frombuffer(content, dtype=torch.uint8, offset=begin)
    if kind.itemsize > 1:  # the file is big-endian; every machine that PyTorch runs on is little-endian
        values = values.view(-1, kind.itemsize).flip(1).contiguous()
    return values.view(kind).view(shape)


def read_uncompressed(path: Path) -> bytearray:
    """Return the bytes of a file, uncompressed if it is gzipped; raise `CorruptFile` if that fails.

    A bytearray, because PyTorch warns of memory that cannot be written to.
    """
    raw = path.read_bytes()
    if raw[:2] != b"\x1f\x8b":
        return bytearray(raw)
    try:
        return bytearray(gzip.decompress(raw))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorruptFile(
            f"{path}: expected a whole gzip file, got one that is truncated or altered ({error}); delete it and get "
            "it again"
        ) from error


def check_md5(content: bytes | bytearray, expected: str, source: str | os.PathLike) -> None:
    """Raise `CorruptFile` unless the bytes have this MD5; the source is named.

    >>> check_md5(b"", "d41d8cd98f00b204e9800998ecf8427e", "nothing")
    """
    got = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if got != expected:
        raise CorruptFile(
            f"{source}: truncated or altered: expected MD5 {expected} of the uncompressed bytes, got {got} over "
            f"{len(content):,} bytes; delete it and get it again"
        )


def _header(content: bytearray, path: str | os.PathLike) -> tuple[torch.dtype, tuple[int, ...], int]:
    """Return the type, the shape, and where the values begin."""
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES or content[3] == 0:
        raise CorruptFile(
            f"{path}: expected an IDX file, which begins with the bytes 00 00, a type (08, 09, 0b to 0e) and the "
            f"number of axes, got {bytes(content[:4]).hex(' ') or 'nothing'}"
        )
    begin = 4 + 4 * content[3]
    if len(content) < begin:
        raise CorruptFile(f"{path}: truncated: expected a header of {begin} bytes, got {len(content)}")
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, begin, 4))
    return _TYPES[content[2]], shape, begin


def _product(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count
