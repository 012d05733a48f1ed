"""What runs at each call is generated for the trees of the signature: no general code of trees."""

import sys

import torch

import functrain as ft
from functrain import data, losses, nn, optim


def python_files_entered(function, *args):
    """Return the files whose Python functions run while the function is called."""
    files = set()

    def note(frame, event, _):
        if event == "call":
            files.add(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        function(*args)
    finally:
        sys.setprofile(None)
    return {name.replace("\\", "/") for name in files}


def test_a_call_takes_records_apart_by_their_fields():
    learner = ft.Learner(nn.dense(2), losses.mse, optim.adam(lr=0.1))
    batch = data.Batch(torch.ones(3, 2), torch.zeros(3, 2), torch.ones(3))
    step = ft.jit(ft.train_step(learner))
    state = ft.init(learner, ft.random.key(0), batch)
    step(state, batch)
    files = python_files_entered(step, state, batch)
    assert any(name.endswith("functrain/engine/calling/jitting.py") for name in files)
    assert not [name for name in files if "/functrain/tree/" in name or "_pytree" in name]
