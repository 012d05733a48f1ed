"""The callbacks that come with functrain."""

import math

import pytest
import torch
from training_problems import eager, noting, problem

import functrain as ft
from functrain import data, optim, schedule, tree
from functrain.errors import (
    InvalidArgument,
)


@pytest.fixture(scope="module")
def small():
    return problem()


def test_early_stopping_waits_and_restores_the_best():
    learner, state, train, valid = problem(optimizer=optim.sgd(lr=schedule.linear(0.1, 300.0)))
    stop = ft.callbacks.early_stopping("valid/loss", patience=2, restore_best=True)
    for jit in (False, "aten"):
        result = ft.fit(learner, state, train=train, valid=valid, epochs=30, callbacks=[stop], jit=jit)
        column = result.history["valid/loss"]
        best = min(range(len(column)), key=column.__getitem__)
        assert len(column) == best + 3 < 30
        assert result.memory["early_stopping"].epoch == best
        assert ft.evaluate(learner, result.state, valid)["loss"] == pytest.approx(column[best], rel=1e-5)
        assert f"epoch {best + 1}" in result.stopped.reason


def test_early_stopping_checks_what_it_is_told():
    learner, state, train, _ = problem(n=16)
    for options, message in (
        (dict(patience=0), "patience must be a whole number"),
        (dict(min_delta=-1.0), "min_delta must be at least 0"),
        (dict(mode="least"), "mode must be 'min' or 'max'"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            ft.callbacks.early_stopping(**options)
    with pytest.raises(InvalidArgument, match=r"monitor must be a phase and a name, such as .*train.*got .valid_loss"):
        eager(learner, state, train, callbacks=[ft.callbacks.early_stopping("valid_loss")])
    with pytest.raises(InvalidArgument, match="'valid/loss' is not measured in this fit"):
        begun = noting(["begin_epoch"], notes := [])
        eager(learner, state, train, callbacks=[ft.callbacks.early_stopping("valid/loss"), begun])
    assert notes == [], "it is found before an epoch is trained"


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("jit", [False, "aten"])
def test_finite_says_where_and_keeps_the_state_from_before(jit, chunk):
    learner, state, train, _ = problem()
    inputs = train.dataset.arrays[0].clone()
    inputs[17] = float("nan")
    poisoned = data.loader(data.ArrayDataset((inputs, train.dataset.arrays[1])), data.sequential(8))
    result = ft.fit(
        learner, state, train=poisoned, epochs=1, callbacks=[ft.callbacks.finite(gradients=True)], jit=jit, chunk=chunk
    )
    assert (result.stopped.epoch, result.stopped.batch, result.stopped.reason) == (0, 2, "the loss is not finite")
    assert int(result.state.step) == 2
    assert all(bool(torch.isfinite(leaf).all()) for leaf in tree.leaves(result.state))
    _, logs = ft.train_step(learner)(result.state, data.as_batch(poisoned.dataset[16:24]))
    assert math.isnan(float(logs["loss"]))


def test_record_has_a_row_a_step(small):
    learner, state, train, valid = small
    recorded = eager(learner, state, train, valid, callbacks=[ft.callbacks.record()]).memory["record"]
    steps = 2 * len(train)
    assert recorded["step"].tolist() == list(range(steps))
    assert {"epoch", "loss", "accuracy", "lr"} <= set(recorded)
    expected = [schedule.one_cycle(0.05, 0.2, 0.01)(step / steps) for step in range(steps)]
    assert recorded["lr"].tolist() == pytest.approx(expected)


def test_progress_prints_a_line_an_epoch_where_there_is_no_terminal(small, capsys):
    learner, state, train, valid = small
    eager(learner, state, train, valid, callbacks=[ft.callbacks.progress(), ft.callbacks.print_table()])
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1/2  train/loss ")
    table = captured.out.strip().splitlines()
    assert len(table) == 3
    assert table[0].split()[:2] == ["epoch", "train/loss"]


def test_progress_draws_a_bar_on_a_terminal(small):
    import io

    from rich.console import Console

    learner, state, train, valid = small
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    for jit in (False, "aten"):
        ft.fit(learner, state, train=train, valid=valid, epochs=2, callbacks=[ft.callbacks.progress(console)], jit=jit)
    assert "14/14" in screen.getvalue()
    assert "batches/s" in screen.getvalue()
