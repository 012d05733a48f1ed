"""Faults while saving: a process killed, a full disk, a call that fails. The old or the new file is there, whole."""

import errno
import os
import resource
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from forging import saved

from functrain import checkpoint
from functrain.checkpoint.format import header, reading, writing
from functrain.errors import CannotSave

KILLS = int(os.environ.get("FUNCTRAIN_KILLS", "20"))

OLD = {"w": torch.zeros(100_000), "n": 1}
NEW = {"w": torch.ones(300_000), "n": 2}


def test_killed_at_random_moments_of_saving(tmp_path):
    script = Path(__file__).parent / "killing.py"
    command = [sys.executable, str(script), str(tmp_path / "run"), str(KILLS), "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120 + 2 * KILLS, env=environment)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > KILLS / 10  # most moments are in the middle of a file, or the test would say little


def unharmed(path):
    """Assert that the old checkpoint is there, and nothing else."""
    assert checkpoint.load(path)["n"] == 1 and bool((checkpoint.load(path)["w"] == 0).all())
    assert [one.name for one in path.parent.iterdir()] == [path.name]


@contextmanager
def files_up_to(size):
    """Let no file grow beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 1, 500, 4096, 100_000, 1_000_000, 1_200_000])
def test_a_file_that_may_not_grow(tmp_path, size):
    path = saved(tmp_path, OLD)
    with files_up_to(size), pytest.raises(CannotSave) as caught:
        checkpoint.save(path, NEW)
    assert str(caught.value) == (
        f"cannot save {path}: file too large (a limit is set on file sizes); nothing was overwritten"
    )
    unharmed(path)


def test_a_small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]
    mounted = subprocess.run(mounting, capture_output=True, text=True, timeout=60)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a small file system: {mounted.stderr.strip()}")
    try:
        path = saved(disk, OLD)
        with pytest.raises(CannotSave, match=r"no space left on device \(free some space\); nothing was overwritten"):
            checkpoint.save(path, NEW)
        unharmed(path)
        with pytest.raises(CannotSave, match="no space left on device"):
            checkpoint.add(disk / "run", NEW)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True, timeout=60)
        for act in (lambda: checkpoint.save(path, OLD), lambda: checkpoint.add(disk / "other", OLD)):
            with pytest.raises(CannotSave, match="read-only file system"):
                act()
    finally:
        subprocess.run(["umount", disk], check=True, timeout=60)


FAILURES = [("open", errno.EROFS), ("pwrite", errno.ENOSPC), ("fsync", errno.EIO), ("replace", errno.EACCES)]


@pytest.mark.parametrize(("call", "number"), FAILURES, ids=[call for call, _ in FAILURES])
def test_a_call_that_fails(tmp_path, monkeypatch, call, number):
    path = saved(tmp_path, OLD)

    def fails(*_arguments, **_options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(writing.os, call, fails)
    with pytest.raises(CannotSave, match="(?i)" + os.strerror(number)) as caught:
        checkpoint.save(path, NEW)
    monkeypatch.undo()
    assert isinstance(caught.value.__cause__, OSError) and caught.value.__cause__.errno == number
    unharmed(path)


@pytest.mark.parametrize("stops_at", range(1, 8))
def test_interrupted_in_the_middle(tmp_path, monkeypatch, stops_at):
    path = saved(tmp_path, OLD)
    for module in (header, reading, writing):
        monkeypatch.setattr(module, "PIECE", 300_000)
    write, calls = os.pwrite, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == stops_at:
            raise KeyboardInterrupt
        return write(*arguments)

    monkeypatch.setattr(writing.os, "pwrite", interrupted)
    if stops_at <= 5:  # four pieces and the header
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(path, NEW)
        monkeypatch.undo()
        unharmed(path)
    else:
        checkpoint.save(path, NEW)
        assert len(calls) == 5 and checkpoint.load(path)["n"] == 2


def test_writes_that_are_short_are_gone_on_with(tmp_path, monkeypatch):
    write = os.pwrite
    monkeypatch.setattr(writing.os, "pwrite", lambda file, data, place: write(file, data[:70_000], place))
    assert torch.equal(checkpoint.load(saved(tmp_path, NEW))["w"], NEW["w"])


def test_everything_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    order = []
    for call in ("pwrite", "fsync", "replace"):
        real = getattr(os, call)
        monkeypatch.setattr(writing.os, call, lambda *a, call=call, real=real: order.append(call) or real(*a))
    saved(tmp_path, NEW)
    assert order[-3:] == ["fsync", "replace", "fsync"] and set(order[:-3]) == {"pwrite"}


# What stands in the way


def test_what_is_no_checkpoint_is_never_replaced(tmp_path):
    path = tmp_path / "train.py"
    path.write_text("import functrain as ft")
    with pytest.raises(CannotSave, match="what is there is no checkpoint; delete it, or choose another name"):
        checkpoint.save(path, 1)
    assert path.read_text() == "import functrain as ft"
    path.write_text("")
    checkpoint.save(path, 1)
    assert checkpoint.load(path) == 1


def test_folders_links_and_pipes_are_not_replaced(tmp_path):
    target = saved(tmp_path, OLD)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    os.mkfifo(tmp_path / "pipe")
    for name, message in [
        ("folder", "it is a folder; name a file in it"),
        ("link", "it is a link, which would be replaced; name what it leads to"),
        ("nowhere", "it is a link"),
        ("pipe", "what is there is no checkpoint"),
        ("missing/a", "there is no folder .*missing; make it first"),
        ("a.safetensors/b", "a.safetensors is a file, not a folder"),
    ]:
        with pytest.raises(CannotSave, match=message):
            checkpoint.save(tmp_path / name, NEW)
    assert checkpoint.load(target)["n"] == 1 and not (tmp_path / "missing").exists()


def test_a_link_in_place_of_the_temporary_file_is_not_followed(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr(writing.secrets, "token_hex", lambda size: "guessed")
    (tmp_path / ".a.safetensors.guessed.partial").symlink_to(victim)
    with pytest.raises(CannotSave, match="file exists"):
        saved(tmp_path, 1)
    assert victim.read_text() == "mine"


def test_what_a_killed_process_left_is_swept_and_what_is_written_is_not(tmp_path):
    (tmp_path / ".a.safetensors.00.partial").write_bytes(b"left")
    with writing._temporary(tmp_path / "a.safetensors") as (_, busy):
        saved(tmp_path, 1)
        assert busy.exists() and not (tmp_path / ".a.safetensors.00.partial").exists()


@pytest.mark.parametrize(
    "name", ["n" * 255, "ü" * 127, "😀" * 63, "a[1]*?.safetensors", "\udcff" * 80 + "a"], ids=str.__len__
)
def test_names_that_are_long_or_odd(tmp_path, name):
    with writing._temporary(tmp_path / name) as (_, partial):
        os.rename(partial, left := partial.with_name(partial.name.replace(".partial", "0.partial")))
    (tmp_path / ".another.00.partial").touch()
    checkpoint.save(tmp_path / name, 1)
    assert checkpoint.load(tmp_path / name) == 1
    assert not left.exists() and (tmp_path / ".another.00.partial").exists()


def test_a_file_that_was_swept_away_is_an_error(tmp_path, monkeypatch):
    lock = writing.fcntl.flock

    def swept(file, how):
        lock(file, how)
        for name in tmp_path.glob(".*.partial"):
            name.unlink()

    monkeypatch.setattr(writing.fcntl, "flock", swept)
    with pytest.raises(CannotSave, match="another process swept its temporary file away; save again"):
        saved(tmp_path, 1)


def test_a_header_that_is_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "MOST_BYTES", 400)
    with pytest.raises(CannotSave, match=r"its header would have \d+ bytes, and 400 are the most"):
        saved(tmp_path, list(range(100)))
    assert list(tmp_path.iterdir()) == []


def test_a_machine_of_another_byte_order(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "byteorder", "big")
    with pytest.raises(CannotSave, match="the bytes of numbers stand the other way round on this machine"):
        saved(tmp_path, 1)


def test_time_is_utc(tmp_path):
    saved_at = checkpoint.restore(saved(tmp_path, 1)).time
    assert abs(time.mktime(time.strptime(saved_at, "%Y-%m-%dT%H:%M:%SZ")) - time.mktime(time.gmtime())) < 60
