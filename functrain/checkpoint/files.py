"""One checkpoint, one file: `save`, `load` and `restore`."""

import functools
import os
import platform
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from functrain.checkpoint.format.elements import STORED, dense_stride
from functrain.checkpoint.format.header import Entry, Header
from functrain.checkpoint.format.reading import meta_tensors, open_checkpoint, read_tensors
from functrain.checkpoint.format.taking_apart import Parts, is_scalar, scalar_outline, take_apart
from functrain.checkpoint.format.writing import check_target, sweep, write
from functrain.checkpoint.saved import Saved, as_plain, as_saved, into
from functrain.errors import CannotSave, InvalidArgument

NOTHING: Any = object()


def save(path: str | os.PathLike, value: Any, *, info: Mapping[str, Any] | None = None) -> None:
    """Save a value to one file; at any moment the earlier file or the new one is there, whole.

    The file is a safetensors file: `safetensors.torch.load_file(path)` reads its tensors by dotted path (one of
    complex128 as pairs of float64, one that stands at two paths under the first). It holds no pickle.

    Args:
        path: the file, in a folder that is there. An earlier checkpoint is replaced; another file never is.
        value: dicts, lists, tuples and frozen attrs classes of tensors, numbers, strings and None. A tensor is saved
            without its gradient and its device, and with its strides; where these have gaps or overlap, with those of
            its clone.
        info: numbers and strings by name to be written beside it, such as {"step": 400, "valid/loss": 0.3}.

    Raises:
        NotSavable: something in the value is none of these; the message names it by dotted path.
        CannotSave: the file cannot be written, or something that is no checkpoint stands in its place.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/a.safetensors", {"w": torch.ones(2), "lr": 0.5})
    ...     load(f"{folder}/a.safetensors")
    {'w': tensor([1., 1.]), 'lr': 0.5}
    """
    put(as_path(path), take_apart(value), info)


def load(path: str | os.PathLike, like: Any = NOTHING) -> Any:
    """Return a value that was saved.

    Args:
        path: the file.
        like: a value of the structure that it shall have, see `restore`. Without, it comes back in dicts, lists and
            tuples; a frozen class comes back as the dict of its fields.

    Raises:
        NoCheckpoint: there is no file.
        CorruptFile: the file was truncated or altered, or is no checkpoint.
        NewerFormat: a newer functrain saved it.
        TreeMismatch: it has another structure than `like`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/a.safetensors", (torch.ones(2), [1, None]))
    ...     load(f"{folder}/a.safetensors")
    (tensor([1., 1.]), [1, None])
    """
    return as_plain(restore(path)) if like is NOTHING else restore(path, like)


def restore(path: str | os.PathLike, like: Any = NOTHING) -> Any:
    """Return what was saved, as a `Saved`, or in the structure of `like`.

    The whole file is checked: every byte of it counts in a checksum.

    Args:
        path: the file.
        like: a value of the structure, such as a state that `init` made. Its leaves say which dtype, shape and device
            are expected. `Anything()`, `Optional(like)` and `Each(like)` stand where it cannot say.

    Raises:
        NoCheckpoint: there is no file.
        CorruptFile: the file was truncated or altered, or is no checkpoint; nothing of it was used.
        NewerFormat: a newer functrain saved it.
        TreeMismatch: it has another structure than `like`; the message lists which paths differ, with both shapes.
        InvalidArgument: something in `like` is neither a container, nor a tensor, nor data.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/a.safetensors", {"w": torch.ones(2)}, info={"step": 3})
    ...     saved = restore(f"{folder}/a.safetensors")
    ...     restore(f"{folder}/a.safetensors", {"w": torch.zeros(3)})
    Traceback (most recent call last):
        ...
    functrain.errors.TreeMismatch: ...a.safetensors has another structure than `like`:
      w: expected float32(3,), saved float32(2,)
    >>> saved.leaves, saved.info
    ({'w': tensor([1., 1.])}, {'step': 3})
    """
    where = as_path(path)
    with open_checkpoint(where) as (file, header, start):
        if like is not NOTHING:
            into(as_saved(str(where), header, meta_tensors(header.entries)), like)  # before a gigabyte is read in vain
        saved = as_saved(str(where), header, read_tensors(file, header, start))
    return saved if like is NOTHING else into(saved, like)


def outline(path: str | os.PathLike) -> Saved:
    """Return what was saved without reading the data: its tensors are on the device "meta" and have shapes alone.

    Raises:
        NoCheckpoint, CorruptFile, NewerFormat: as `restore`; the data is not checked.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/a.safetensors", {"w": torch.ones(2)})
    ...     outline(f"{folder}/a.safetensors").leaves["w"].shape
    torch.Size([2])
    """
    with open_checkpoint(as_path(path)) as (_, header, _):
        return as_saved(str(path), header, meta_tensors(header.entries))


def as_path(path: Any) -> Path:
    """Return a path, or raise `InvalidArgument` for what is none.

    >>> as_path("a/b.safetensors").name
    'b.safetensors'
    """
    if isinstance(path, (str, os.PathLike)) and str(path) and "\0" not in str(path):
        return Path(path)
    raise InvalidArgument(f"path must be the name of a file, got {path!r}")


def put(
    path: Path, parts: Parts, info: Mapping[str, Any] | None, number: int | None = None, replace: bool = True
) -> None:
    """Write a value that was taken apart; the arguments are those of `save` and of `add`.

    >>> put(Path("nowhere/a"), take_apart(3), None)
    Traceback (most recent call last):
        ...
    functrain.errors.CannotSave: cannot save nowhere/a: there is no folder nowhere; make it first
    """
    if sys.byteorder != "little":
        raise CannotSave(f"cannot save {path}: the bytes of numbers stand the other way round on this machine")
    check_target(path)
    sweep(path.parent, path.name)
    write(path, make_header(parts, check_info(info), number), parts.tensors, replace)


def check_info(info: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return what is to be written beside a value, or raise `InvalidArgument`.

    >>> check_info({"loss": [1]})
    Traceback (most recent call last):
        ...
    functrain.errors.InvalidArgument: info must be numbers, strings and None by name, got 'loss': [1]
    """
    for name, value in (info or {}).items():
        if type(name) is not str or not is_scalar(value):
            raise InvalidArgument(f"info must be numbers, strings and None by name, got {name!r}: {value!r}")
    return info or {}


def check_savable(value: Any) -> None:
    """Raise `NotSavable` unless a value can be saved; nothing is copied or written.

    >>> check_savable({"w": torch.ones(2), "f": print})
    Traceback (most recent call last):
        ...
    functrain.errors.NotSavable: f: tensors, numbers, strings, None, dicts, lists, tuples and frozen attrs classes...
    """
    take_apart(value)


def make_header(parts: Parts, info: Mapping[str, Any], number: int | None) -> Header:
    """Return the header of a value that was taken apart, without checksums.

    >>> make_header(take_apart(3), {}, None).outline
    3
    """
    entries, begin = {}, 0
    # The largest elements first, so that each tensor begins at a multiple of its element's size.
    for name in sorted(parts.tensors, key=lambda name: -STORED[parts.tensors[name].dtype].dtype.itemsize):
        tensor = parts.tensors[name]
        nbytes = tensor.numel() * STORED[tensor.dtype].size
        stride = dense_stride(tensor)
        entries[name] = Entry(tensor.dtype, tuple(tensor.shape), stride, begin, nbytes, device=str(tensor.device))
        begin += nbytes
    written = {name: scalar_outline(value) for name, value in info.items()}
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Header(entries, parts.outline, written, _versions(), now, number)


@functools.cache
def _versions() -> Mapping[str, str]:
    try:
        own = version("functrain")
    except PackageNotFoundError:  # used from its sources, not installed
        own = "unknown"
    return {"functrain": own, "torch": str(torch.__version__), "python": platform.python_version()}
