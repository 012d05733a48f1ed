"""What a file will hold, made of a value that was taken apart; of a small one all bytes at once.

A small checkpoint is copied, checked and laid out in one go, by whoever saves: a thread that writes it then runs next
to no Python, which would hold up the training that it writes beside.
"""

import functools
import platform
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.checkpoint.format.elements import STORED, bytes_of, dense_stride
from functrain.checkpoint.format.header import Entry, Header, checksums, encode
from functrain.checkpoint.format.taking_apart import Parts, scalar_outline

SMALL = 2**20
"""Up to how many bytes of tensors a file is laid out at once."""


@attrs.frozen(eq=False)
class Content:
    """What a file will hold.

    Attributes:
        header: what it says; without checksums where the file is not packed.
        tensors: the tensors of the header's entries by name; none where the file is packed.
        packed: the whole file, if it is small; it shares no memory with the tensors.
    """

    header: Header
    tensors: Mapping[str, Tensor]
    packed: bytes | None = None


def pack(parts: Parts, info: Mapping[str, Any], number: int | None, apart: bool = False) -> Content:
    """Return what a file will hold.

    Args:
        parts: the value.
        info: what is written beside it.
        number: the number that it has in a folder, if it is in one.
        apart: whether it shall share no memory with the value; the copy is on the CPU, and finished.

    >>> pack(Parts(3, {}), {"step": 7}, None).header.info
    {'step': 7}
    >>> x = torch.ones(1_000_000)
    >>> content = pack(Parts(None, {"x": x}), {}, None, apart=True)
    >>> content.tensors["x"] is x, content.header.entries["x"].nbytes
    (False, 4000000)
    """
    if sum(tensor.numel() * STORED[tensor.dtype].size for tensor in parts.tensors.values()) > SMALL:
        header = make_header(parts, info, number)  # of the tensors themselves, which say where they were
        return Content(
            header, {name: _copy(tensor) for name, tensor in parts.tensors.items()} if apart else parts.tensors
        )
    data = {name: bytes_of(tensor) for name, tensor in parts.tensors.items()}
    header = make_header(parts, info, number, {name: checksums(memoryview(piece)) for name, piece in data.items()})
    return Content(header, {}, b"".join([encode(header), *(data[name] for name in header.entries)]))


def _copy(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.device.type == "cpu" else tensor.cpu()


def make_header(
    parts: Parts, info: Mapping[str, Any], number: int | None, crc32: Mapping[str, tuple[int, ...]] | None = None
) -> Header:
    """Return the header of a value that was taken apart, with the checksums of its tensors by name, if they are there.

    >>> make_header(Parts(3, {}), {}, None).outline
    3
    """
    entries, begin = {}, 0
    # The largest elements first, so that each tensor begins at a multiple of its element's size.
    for name in sorted(parts.tensors, key=lambda name: -STORED[parts.tensors[name].dtype].dtype.itemsize):
        tensor = parts.tensors[name]
        nbytes = tensor.numel() * STORED[tensor.dtype].size
        sums = crc32[name] if crc32 else ()
        shape, stride = tuple(tensor.shape), dense_stride(tensor)
        entries[name] = Entry(tensor.dtype, shape, stride, begin, nbytes, sums, str(tensor.device))
        begin += nbytes
    described = {name: scalar_outline(value) for name, value in info.items()}
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Header(entries, parts.outline, described, _versions(), now, number)


@functools.cache
def _versions() -> Mapping[str, str]:
    try:
        own = version("functrain")
    except PackageNotFoundError:  # used from its sources, not installed
        own = "unknown"
    return {"functrain": own, "torch": str(torch.__version__), "python": platform.python_version()}
