"""Folders of checkpoints: numbers, the newest, and which stay; and saving in a thread."""

import os
import subprocess
import sys
import threading
import time

import pytest
import torch
from forging import saved

import functrain as ft
from functrain import checkpoint
from functrain.checkpoint import folders
from functrain.checkpoint.format import packing, writing
from functrain.checkpoint.format.packing import pack
from functrain.checkpoint.format.taking_apart import take_apart
from functrain.errors import CannotSave, CorruptFile, InvalidArgument, NoCheckpoint, NotSavable, TreeMismatch


def fill(folder, losses):
    for step, loss in enumerate(losses):
        checkpoint.add(folder, {"step": step}, info={"step": step, "valid/loss": loss})


def steps(folder):
    return [entry.info["step"] for entry in checkpoint.entries(folder)]


def test_the_newest_is_the_one_added_last(tmp_path):
    folder = tmp_path / "run"
    assert checkpoint.latest(folder) is None and checkpoint.entries(folder) == ()
    fill(folder, range(12))
    assert steps(folder) == list(range(12))
    assert checkpoint.latest(folder).leaves == {"step": 11} and checkpoint.latest(folder).number == 12
    assert checkpoint.latest(folder, {"step": 0}) == {"step": 11}
    with pytest.raises(TreeMismatch, match="step: expected str, saved int"):
        checkpoint.latest(folder, {"step": ""})


def test_a_new_run_goes_on_after_the_last_number_though_files_were_deleted(tmp_path):
    fill(tmp_path, range(3))
    os.remove(checkpoint.entries(tmp_path)[0].path)
    path = checkpoint.add(tmp_path, 3)
    assert path.name == "checkpoint-00000004.safetensors"


def test_the_number_is_read_from_the_file_not_from_its_name(tmp_path):
    fill(tmp_path, range(3))
    first, _, last = (entry.path for entry in checkpoint.entries(tmp_path))
    os.rename(first, tmp_path / "x")
    os.rename(last, first)
    os.rename(tmp_path / "x", last)
    assert steps(tmp_path) == [0, 1, 2]


def test_other_files_are_passed_over(tmp_path):
    fill(tmp_path, range(2))
    target = saved(tmp_path, "elsewhere")
    (tmp_path / "checkpoint-00000009.safetensors").symlink_to(target)
    (tmp_path / ".checkpoint-00000010.safetensors.00.partial").write_bytes(b"")
    (tmp_path / "checkpoint-00000011.safetensors").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    assert steps(tmp_path) == [0, 1]
    assert checkpoint.keep(tmp_path, last=1) == [tmp_path / "checkpoint-00000001.safetensors"]
    assert target.exists() and (tmp_path / "notes.txt").exists()


def test_a_damaged_newest_is_not_passed_over_in_silence(tmp_path):
    fill(tmp_path, range(2))
    newest = checkpoint.entries(tmp_path)[-1].path
    with open(newest, "r+b") as file:
        file.truncate(100)
    for act in (checkpoint.latest, checkpoint.entries, lambda folder: checkpoint.keep(folder, last=1)):
        with pytest.raises(CorruptFile, match=r"cannot restore .*checkpoint-00000002\.safetensors: it was truncated"):
            act(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    os.remove(newest)
    assert checkpoint.latest(tmp_path).leaves == {"step": 0}


LOSSES = [0.5, 0.1, float("nan"), 0.3, 0.1, None, 0.4]


@pytest.mark.parametrize(
    ("options", "stay"),
    [
        ({"last": 1}, [6]),
        ({"last": 3}, [4, 5, 6]),
        ({"last": 100}, [0, 1, 2, 3, 4, 5, 6]),
        ({"last": 1, "best": 1}, [4, 6]),
        ({"last": 1, "best": 2}, [1, 4, 6]),
        ({"last": 1, "best": 2, "mode": "max"}, [0, 6]),
        ({"last": 2, "best": 100}, [0, 1, 3, 4, 5, 6]),
        ({"last": 1, "best": 1, "by": "step"}, [0, 6]),
    ],
)
def test_keep(tmp_path, options, stay):
    fill(tmp_path, LOSSES)
    before = {entry.path for entry in checkpoint.entries(tmp_path)}
    deleted = checkpoint.keep(tmp_path, **options)
    assert steps(tmp_path) == stay and len(deleted) == 7 - len(stay)
    assert {str(path) for path in deleted} == before - {entry.path for entry in checkpoint.entries(tmp_path)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"last": 0}, "last must be a whole number of at least 1, got 0"),
        ({"last": True}, "last must be a whole number of at least 1, got True"),
        ({"last": 1, "best": -1}, "best must be a whole number of at least 0, got -1"),
        ({"last": 1, "mode": "least"}, "mode must be 'min' or 'max', got 'least'"),
        (
            {"last": 1, "best": 1, "by": "a"},
            "by: no checkpoint has a number 'a' in its info, which has step",
        ),
    ],
)
def test_keep_refuses(tmp_path, options, message):
    fill(tmp_path, LOSSES)
    with pytest.raises(InvalidArgument, match=message):
        checkpoint.keep(tmp_path, **options)
    assert len(steps(tmp_path)) == 7


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotSave, match="file: it is a file, not a folder; delete it, or choose another name"):
        checkpoint.add(tmp_path / "file", 1)
    for act in (checkpoint.latest, checkpoint.entries):
        with pytest.raises(NoCheckpoint, match="file is a file, not a folder of checkpoints"):
            act(tmp_path / "file")
    with pytest.raises(CannotSave, match=r"there is no folder .*missing; make it first"):
        checkpoint.add(tmp_path / "missing" / "run", 1)
    with pytest.raises(NotSavable):
        checkpoint.add(tmp_path / "run", print)
    assert not (tmp_path / "run").exists()


def put(inside, value):
    folders.put_into(inside, pack(take_apart(value), {}, inside.next))


def test_two_processes_that_save_into_one_folder_do_not_overwrite_each_other(tmp_path):
    one, other = folders.look_into(tmp_path), folders.look_into(tmp_path)  # each before the other has finished
    put(one, 1)
    with pytest.raises(CannotSave, match=r"checkpoint-00000001.* another process has just saved it; use a folder for"):
        put(other, 2)
    assert checkpoint.latest(tmp_path).leaves == {"": 1} and len(list(tmp_path.iterdir())) == 1


def test_file_systems_without_links(tmp_path, monkeypatch):
    def fails(*_arguments):
        raise PermissionError

    monkeypatch.setattr(writing.os, "link", fails)
    fill(tmp_path, range(2))
    assert steps(tmp_path) == [0, 1] and len(list(tmp_path.iterdir())) == 2
    late = folders.look_into(tmp_path)
    fill(tmp_path, [2])
    with pytest.raises(CannotSave, match=r"checkpoint-00000003.* something is there already; delete it, or choose an"):
        put(late, 2)
    assert steps(tmp_path) == [0, 1, 0]


def test_a_folder_that_cannot_be_looked_into(tmp_path, monkeypatch):
    def fails(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(folders.os, "listdir", fails)
    with pytest.raises(CannotSave, match=r"cannot save into .*: permission denied"):
        checkpoint.add(tmp_path, 1)


# In a thread


@pytest.fixture
def slow(monkeypatch):
    """Return an event that a writing thread waits for before it flushes to the disk."""
    go, flush = threading.Event(), os.fsync
    monkeypatch.setattr(writing.os, "fsync", lambda file: go.wait(20) and flush(file))
    yield go
    go.set()


def test_what_is_saved_is_what_it_was_and_no_live_tensor_is_touched(tmp_path, slow):
    state = {"w": torch.ones(1000), "tied": None}
    state["tied"] = state["w"]
    with checkpoint.background() as saving:
        saving.save(tmp_path / "a.safetensors", state, info={"step": 1})
        state["w"].zero_()
        slow.set()
    loaded = checkpoint.load(tmp_path / "a.safetensors")
    assert bool((loaded["w"] == 1).all()) and loaded["w"] is loaded["tied"]


def test_a_thread_writes_where_the_working_directory_was(tmp_path, monkeypatch, slow):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with checkpoint.background() as saving:
        saving.add("run", 1)
        os.chdir("elsewhere")
        slow.set()
        saving.wait()
        saving.save("a", torch.ones(300_000))
        os.chdir(tmp_path)
    assert checkpoint.latest("run").leaves == {"": 1} and (tmp_path / "elsewhere" / "a").exists()


def test_a_donated_state_is_saved_as_it_was(tmp_path, slow):
    step = ft.jit(lambda s: {"w": s["w"] + 1}, donate=0)
    state = {"w": torch.ones(1000)}
    with checkpoint.background() as saving:
        saving.add(tmp_path, state)
        for _ in range(3):
            state = step(state)
        slow.set()
    assert bool((checkpoint.latest(tmp_path).leaves["w"] == 1).all())


def test_saving_returns_before_the_disk_has_it_and_the_next_waits(tmp_path, slow):
    with checkpoint.background() as saving:
        saving.add(tmp_path, 1)
        saving.check()
        assert checkpoint.entries(tmp_path) == ()
        threading.Timer(0.2, slow.set).start()
        saving.add(tmp_path, 2)
        assert len(checkpoint.entries(tmp_path)) >= 1
        saving.wait()
        assert len(checkpoint.entries(tmp_path)) == 2


def test_what_goes_wrong_is_raised_at_the_next_call(tmp_path, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    for act in (lambda s: s.check(), lambda s: s.wait(), lambda s: s.add(tmp_path, 2), lambda s: None):
        monkeypatch.setattr(writing.os, "fsync", full)
        with pytest.raises(CannotSave, match="no space left on device"), checkpoint.background() as saving:
            saving.add(tmp_path, 1)
            while not saving.waiting[0].done():
                time.sleep(0.01)
            act(saving)
        assert list(tmp_path.iterdir()) == []
        monkeypatch.undo()


def test_an_error_is_raised_once_and_saving_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(writing.os, "fsync", lambda file: os.read(-1, 1))
    with checkpoint.background() as saving:
        saving.add(tmp_path, 1)
        with pytest.raises(CannotSave, match="bad file descriptor"):
            saving.wait()
        monkeypatch.undo()
        saving.add(tmp_path, 2)
    assert checkpoint.latest(tmp_path).leaves == {"": 2}


def test_mistakes_are_found_at_once(tmp_path):
    with checkpoint.background() as saving:
        with pytest.raises(NotSavable, match="a: tensors, numbers"):
            saving.add(tmp_path, {"a": print})
        with pytest.raises(CannotSave, match="there is no folder"):
            saving.save(tmp_path / "missing" / "a", 1)
        with pytest.raises(CannotSave, match="there is no folder"):
            saving.add(tmp_path / "missing" / "run", 1)
        with pytest.raises(InvalidArgument, match="info must be"):
            saving.add(tmp_path, 1, info={"a": []})
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_script_is_not_hidden_by_one_of_the_thread(tmp_path, monkeypatch):
    monkeypatch.setattr(writing.os, "fsync", lambda file: os.read(-1, 1))
    with pytest.raises(ZeroDivisionError), checkpoint.background() as saving:
        saving.add(tmp_path, 1)
        raise ZeroDivisionError


def test_what_is_under_way_is_finished_when_the_script_fails(tmp_path, slow):
    with pytest.raises(ZeroDivisionError), checkpoint.background() as saving:
        saving.add(tmp_path, 1)
        slow.set()
        raise ZeroDivisionError
    assert checkpoint.latest(tmp_path).leaves == {"": 1}


FORKS = """
import os, sys, threading, time
import torch
from functrain import checkpoint
from functrain.checkpoint.format import writing

flush = os.fsync
writing.os.fsync = lambda file: (time.sleep(0.5), flush(file))
folder = sys.argv[1]
with checkpoint.background() as saving:
    saving.add(folder, {"w": torch.ones(1000)})
    time.sleep(0.1)  # it is writing
    child = os.fork()
    if child == 0:
        whole = len(checkpoint.entries(folder)) == 1 and not [n for n in os.listdir(folder) if n.startswith(".")]
        try:
            saving.add(folder, 2)
        except checkpoint.asynchronous.CannotSave as error:
            whole = whole and "opened in another process" in str(error)
        with checkpoint.background() as own:  # its own thread works
            own.add(folder, 3)
        os._exit(0 if whole and checkpoint.latest(folder).leaves == {"": 3} else 1)
    assert os.waitpid(child, 0)[1] == 0
"""


def test_a_process_is_not_forked_while_it_writes(tmp_path):
    done = subprocess.run([sys.executable, "-c", FORKS, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("small", [True, False])
def test_what_is_packed_apart_keeps_strides_and_ties(monkeypatch, small):
    monkeypatch.setattr(packing, "SMALL", 2**20 if small else 0)
    x = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    parts = take_apart({"x": x, "again": x, "part": x[:, :1]})
    content = pack(parts, {}, None, apart=True)
    assert set(content.header.entries) == {"x", "part"} and content.header.entries["x"].stride == x.stride()
    assert (content.packed is None) != small
    assert all(torch.equal(copied, parts.tensors[name]) for name, copied in content.tensors.items())
    assert not any(copied is parts.tensors[name] for name, copied in content.tensors.items())


LONG = "x" * 300


def test_a_name_that_no_file_system_takes_is_refused_in_words(tmp_path):
    for act in (
        lambda: checkpoint.save(tmp_path / LONG, 1),
        lambda: checkpoint.save(tmp_path / LONG / "a", 1),
        lambda: checkpoint.add(tmp_path / LONG, 1),
        lambda: checkpoint.hold(tmp_path / LONG).__enter__(),
    ):
        with pytest.raises(CannotSave, match=r"(?i)cannot .*file name too long"):
            act()
    for act in (checkpoint.restore, checkpoint.latest, checkpoint.entries):
        with pytest.raises(NoCheckpoint, match=r"(?i)cannot (open|look into) .*file name too long"):
            act(tmp_path / LONG)
