"""The laws of callbacks and of exact resume: what functrain offers keeps to them, and what does not is found."""

import io
from functools import partial

import attrs
import pytest
import torch
from rich.console import Console

import functrain as ft
from functrain import callbacks, data, losses, nn, optim, testing
from functrain.errors import LawBroken

ROWS = data.ArrayDataset((torch.randn(10, 3, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 2))
LEARNER = ft.Learner(nn.serial(nn.dense(4), nn.dropout(0.3), nn.dense(2)), losses.cross_entropy, optim.adam(0.05))
STATE = ft.init(LEARNER, ft.random.key(0), ROWS[:1])
LOADERS = dict(train=data.loader(ROWS, data.shuffled(2)), valid=data.loader(ROWS, data.sequential(4)))
FITTING = partial(ft.fit, LEARNER, epochs=2, **LOADERS)

QUIET = Console(file=io.StringIO())
READY = {
    "record": callbacks.record(),
    "early stopping": callbacks.early_stopping("valid/loss", patience=1, restore_best=True),
    "finite": callbacks.finite(gradients=True),
    "progress": callbacks.progress(QUIET),
    "table": callbacks.print_table(console=QUIET),
}


@pytest.mark.parametrize("name", READY)
def test_ready_callbacks_keep_to_the_laws(name):
    assert len(testing.check_callback(READY[name], FITTING, STATE)) == 6


def broken(callback, law, message):
    with pytest.raises(LawBroken, match=f"breaks the law {law!r}: .*{message}"):
        testing.hold(f"callback {callback.name!r}", {law: testing.callback_laws(callback, FITTING, STATE)[law]})


def counting(counter, event="after_epoch"):
    """Return a callback that counts beside its memory."""

    def handler(run):
        counter.append(1)
        return ft.train.remember(run, "counts", len(counter))

    return ft.Callback("counts", {event: handler}, memory=0, keeps_state=False)


def test_what_is_remembered_beside_the_memory_is_found():
    broken(counting([]), "pure", "two fits with it differ")
    broken(counting([]), "boundaries", "saved at epoch 1")
    broken(counting([]), "stops", "uninterrupted, and stopped in")


def test_what_depends_on_chunks_is_found():
    def after_chunk(run):
        return ft.train.remember(run, "chunks", run.memory["chunks"] + 1)

    broken(ft.Callback("chunks", {"after_chunk": after_chunk}, memory=0), "chunks", "of one batch and of three differ")


def test_what_keeps_a_state_that_is_overwritten_is_found():
    def after_epoch(run):
        return ft.train.remember(run, "keeps", run.memory["keeps"] or run.state.params) if run.epoch == 0 else None

    keeps = ft.Callback("keeps", {"after_epoch": after_epoch}, memory=None, keeps_state=False)
    broken(keeps, "kept", "with keeps_state=False what it keeps is overwritten; say True")
    testing.callback_laws(attrs.evolve(keeps, keeps_state=True), FITTING, STATE)["kept"]()


def test_what_is_not_the_same_compiled_is_found():
    def after_step(step):
        wild = 1.0 if isinstance(step.loss, torch.Tensor) and torch.compiler.is_compiling() else 0.0
        return ft.train.remember(step, "mode", step.memory["mode"] * 0 + wild)

    broken(
        ft.Callback("mode", {"after_step": after_step}, memory=torch.zeros(())), "compiled", "plain Python and compiled"
    )


def test_a_run_that_does_not_go_on_exactly_is_found():
    seen = []

    def step(carry, batch):
        seen.append(1)
        return carry + len(seen), {}

    looping = partial(ft.loop, step, key=ft.random.key(0), train=LOADERS["train"], epochs=1, jit=False)
    with pytest.raises(LawBroken, match="this run breaks the law 'boundaries': uninterrupted, and saved at epoch 1"):
        testing.check_resume(looping, torch.tensor(0.0))
