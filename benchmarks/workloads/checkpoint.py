"""Saving 1 GB of parameters and moments to a file and to the disk, and restoring it, against safetensors alone.

functrain's files have checksums, which are computed when they are saved and checked when they are restored; safetensors
has none. `load_file` maps the file and reads nothing before the tensors are used, so its entrant copies them out of it,
and has them in memory as functrain's has. FUNCTRAIN_BENCH_FOLDER names the folder; FUNCTRAIN_BENCH_BYTES the size.
"""

import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from benchmarks.entrant import Entrant, Target
from functrain import checkpoint

UNIT = (1.0, "s")
BYTES = int(os.environ.get("FUNCTRAIN_BENCH_BYTES", 10**9))
LEAVES = 60
"""So many matrices of equal size, and as many vectors."""


def _value() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    side = int((BYTES / 4 / LEAVES) ** 0.5)
    value = {}
    for leaf in range(LEAVES):
        value[f"{leaf}.weight"] = torch.empty(side, side).uniform_(-1, 1, generator=generator)
        value[f"{leaf}.bias"] = torch.zeros(side)
    return value


def _flush(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.close(file)


def _safetensors_save(path: Path, value: dict[str, torch.Tensor]) -> None:
    save_file(value, path)
    _flush(path)


def _ours_save(path: Path, value: dict[str, torch.Tensor]) -> None:
    checkpoint.save(path, value)


def _copied(path: Path) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def _read(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path, backend="pread")


def _timed(call: Callable, *arguments: object) -> float:
    begun = time.perf_counter()
    result = call(*arguments)
    seconds = time.perf_counter() - begun
    del result
    return seconds


def _file(name: str) -> tuple[Path, tempfile.TemporaryDirectory]:
    folder = tempfile.TemporaryDirectory(dir=os.environ.get("FUNCTRAIN_BENCH_FOLDER"))
    return Path(folder.name) / name, folder


def _check(value: dict[str, torch.Tensor]) -> list[float]:
    return [float(value["0.weight"][0, 0]), float(value[f"{LEAVES - 1}.weight"].double().sum()), float(len(value))]


def _saves(save: Callable) -> Entrant:
    path, folder = _file("a.safetensors")
    value = _value()
    save(path, value)
    _keep.append(folder)
    return Entrant(partial(_timed, save, path, value), lambda: _check(load_file(path)))


def _restores(save: Callable, load: Callable) -> Entrant:
    path, folder = _file("a.safetensors")
    save(path, _value())
    _keep.append(folder)
    return Entrant(partial(_timed, load, path), lambda: _check(load(path)))


_keep: list[tempfile.TemporaryDirectory] = []
"""The folders, which are deleted when the process ends."""

ENTRANTS = {
    "save, functrain": partial(_saves, _ours_save),
    "save, save_file and fsync": partial(_saves, _safetensors_save),
    "restore, functrain": partial(_restores, _ours_save, checkpoint.load),
    "restore, load_file, copied": partial(_restores, _safetensors_save, _copied),
    "restore, load_file by pread": partial(_restores, _safetensors_save, _read),
}

TARGETS = [
    Target("save, functrain", "save, save_file and fsync", 1.2),
    Target("restore, functrain", "restore, load_file, copied", 1.2),
]
