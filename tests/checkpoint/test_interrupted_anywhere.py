"""Ctrl-C between any two instructions of what reads and writes checkpoints: nothing stays open, nothing warns."""

import gc
import os
import sys
import warnings
from contextlib import contextmanager

import pytest
import torch

from functrain import checkpoint
from functrain.checkpoint import folders, holding

FOLDER = os.path.dirname(checkpoint.__file__)


@contextmanager
def interrupted_at(number):
    """Raise KeyboardInterrupt before an instruction of `functrain.checkpoint`, counted from 1."""
    count = 0

    def inside(frame, event, arg):
        nonlocal count
        count += event == "opcode"
        if event == "opcode" and count == number:
            sys.settrace(None)
            raise KeyboardInterrupt
        return inside

    def called(frame, event, arg):
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        frame.f_trace_opcodes = True
        return inside

    before = sys.gettrace()
    sys.settrace(called)
    try:
        yield
    finally:
        sys.settrace(before)


def still_open():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("look", [folders.look_into, folders._files], ids=["to save", "to read"])
def test_looking_into_a_folder_is_interrupted_anywhere(tmp_path, look):
    for _ in range(2):
        checkpoint.add(tmp_path, {"a": torch.ones(3)})
    opened, number, whole = still_open(), 0, None
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ResourceWarning)
        while whole is None:
            number += 1
            try:
                with interrupted_at(number):
                    whole = look(tmp_path)
            except KeyboardInterrupt:
                gc.collect(0)
    assert number > 20 and still_open() == opened
    assert [str(one.message) for one in warned] == []


@pytest.fixture
def quick(monkeypatch):
    """Nothing is flushed to the disk."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


def put_one(folder):
    checkpoint.add(folder, {"a": torch.ones(3)})


def save_one(folder):
    checkpoint.save(folder / "one.safetensors", {"a": torch.ones(3), "n": 1})


def restore_one(folder):
    checkpoint.restore(folder / "checkpoint-00000001.safetensors")


def hold_one(folder):
    with holding.hold(folder):
        holding.check_held(folder)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("act", [put_one, save_one, restore_one, hold_one])
def test_what_is_interrupted_anywhere_leaves_nothing_open_and_nothing_half_written(tmp_path, act):
    checkpoint.add(tmp_path, {"a": torch.ones(3)})
    act(tmp_path)
    opened, number, over = still_open(), 0, False
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ResourceWarning)
        while not over:
            number += 1
            for name in set(os.listdir(tmp_path)) - {"checkpoint-00000001.safetensors"}:
                os.unlink(tmp_path / name)
            try:
                with interrupted_at(number):
                    act(tmp_path)
                over = True
            except KeyboardInterrupt:
                gc.collect(0)
            assert still_open() == opened, number
            assert not holding._held, number
            assert not list(tmp_path.glob(".*partial")), number
    assert number > 100 and [str(one.message) for one in warned] == []
    for entry in checkpoint.entries(tmp_path):
        checkpoint.restore(entry.path)
