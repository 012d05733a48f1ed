"""Ctrl-C between any two instructions of what looks into a folder of checkpoints: nothing stays open, nothing warns."""

import gc
import os
import sys
import warnings
from contextlib import contextmanager

import pytest
import torch

from functrain import checkpoint
from functrain.checkpoint import folders

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
