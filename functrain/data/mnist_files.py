"""MNIST: 70,000 handwritten digits, from the four original files in a folder that you name.

Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document recognition", Proceedings
of the IEEE 86 (1998).
"""

import http.client
import math
import os
import tempfile
import urllib.request
from pathlib import Path

import torch
from torch import Tensor

from functrain.data.dataset import ArrayDataset
from functrain.data.idx import check_md5, read_idx, read_uncompressed
from functrain.errors import CorruptFile, DownloadFailed, InvalidArgument, MissingData

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
"""Where `download=True` gets the files; PyTorch's own mirror."""

FILES = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
"""The four files with the MD5 of their uncompressed bytes."""

TRAINING_ROWS = 50_000
TIMEOUT = 60


def mnist(
    root: str | os.PathLike, scale: float = 256, flat: bool = True, download: bool = False, base_url: str = MIRROR
) -> tuple[ArrayDataset, ArrayDataset]:
    """Return MNIST's first 50,000 training rows to train on, and the last 10,000 to validate on.

    Args:
        root: the folder of the files `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, each as it is or gzipped
            (`.gz`).
        scale: what a pixel, 0 to 255, is divided by: 256, as in the lesson (training mean 0.13045, deviation 0.30729),
            or 255.
        flat: whether an input is a vector of 784 numbers; otherwise it has shape (1, 28, 28).
        download: whether to get files that are not there into `root`, which is made if need be.
        base_url: where to download from: a folder of the gzipped files, with its last slash.

    Returns:
        A pair of `ArrayDataset`s (train, valid): inputs float32, targets int64, 0 to 9.

    Raises:
        MissingData: a file is not there, and `download` is False.
        DownloadFailed: it could not be downloaded; what was whole before stays, and nothing half-done.
        CorruptFile: a file, or what came for it, is not the original (by MD5).
        InvalidArgument: the scale is no positive number.

    >>> mnist("no/such/folder")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    functrain.errors.MissingData: MNIST: no/such/folder has no train-images-idx3-ubyte ...
    """
    inputs, targets = _examples(root, "train", scale, flat, download, base_url)
    # split gives views: the two share one array
    cut = (TRAINING_ROWS, len(inputs) - TRAINING_ROWS)
    train, valid = zip(inputs.split(cut), targets.split(cut), strict=True)
    return ArrayDataset(train), ArrayDataset(valid)


def mnist_test(
    root: str | os.PathLike, scale: float = 256, flat: bool = True, download: bool = False, base_url: str = MIRROR
) -> ArrayDataset:
    """Return MNIST's 10,000 test examples, from its `t10k` files. The arguments and errors are those of `mnist`.

    >>> mnist_test("no/such/folder")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    functrain.errors.MissingData: MNIST: no/such/folder has no t10k-images-idx3-ubyte ...
    """
    return ArrayDataset(_examples(root, "t10k", scale, flat, download, base_url))


def _examples(
    root: str | os.PathLike, part: str, scale: float, flat: bool, download: bool, base_url: str
) -> tuple[Tensor, Tensor]:
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale < math.inf:
        raise InvalidArgument(f"scale must be a positive number, such as 256 or 255, got {scale!r}")
    names = [name for name in FILES if name.startswith(part)]
    paths = [_present(Path(root), name, download, base_url) for name in names]
    missing = [name for name, path in zip(names, paths, strict=True) if path is None]
    if missing:
        raise MissingData(
            f"MNIST: {root} has no {' and no '.join(missing)} (nor gzipped, .gz); pass download=True to get it from "
            f"{base_url}, or copy the original files there"
        )
    images, labels = (read_idx(path, FILES[name]) for name, path in zip(names, paths, strict=True) if path is not None)
    shape = (len(images), -1) if flat else (len(images), 1, 28, 28)
    return images.reshape(shape).to(torch.float32).div_(scale), labels.long()


def _present(root: Path, name: str, download: bool, base_url: str) -> Path | None:
    """Return where the file is, downloaded first if asked; None when it is not there."""
    gzipped = root / f"{name}.gz"
    for path in (root / name, gzipped):
        if path.exists():
            return path
    if not download:
        return None
    fetch(base_url + gzipped.name, gzipped, FILES[name])
    return gzipped


def fetch(url: str, path: Path, md5: str) -> None:
    """Download a file to a path; the file is there whole and checked, or not at all.

    Args:
        url: where from.
        path: where to; its folder is made if need be.
        md5: the MD5 of the bytes, uncompressed if the file is gzipped.

    Raises:
        DownloadFailed: the server does not give the file, or it cannot be written.
        CorruptFile: what came is not the file that was expected.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            content = response.read()
        # Renamed only when whole: a process that dies here leaves a temporary file, never a broken one by that name.
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
        _check(temporary, url, md5)
        os.replace(temporary, path)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, CorruptFile):
            raise
        raise DownloadFailed(
            f"could not download {url} to {path} ({error}); try again, or copy the file there yourself"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _check(temporary: Path, url: str, md5: str) -> None:
    try:
        content = read_uncompressed(temporary)
    except CorruptFile as error:
        raise CorruptFile(f"what came from {url} is no whole gzip file ({error.__cause__}); try again") from error
    check_md5(content, md5, url)
