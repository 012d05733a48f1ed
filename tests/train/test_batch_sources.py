"""Batches from anywhere, predictions, precision, and what inductor compiles."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from training_problems import Rows, eager, problem, stopping_at

import functrain as ft
from functrain import callbacks, data, losses, nn, optim, tree
from functrain.errors import InvalidArgument, SourceEnded

BOTH = pytest.mark.parametrize("jit", [False, "aten"])


def batches_of(train):
    return list(data.batches(data.loader(train.dataset, data.sequential(8))))


@BOTH
@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataloader_trains_as_a_loader_does(jit, workers):
    learner, state, train, valid = problem()
    loader = data.loader(train.dataset, data.sequential(8))
    theirs = DataLoader(TensorDataset(*train.dataset.arrays), batch_size=8, num_workers=workers)
    ours = ft.fit(learner, state, train=loader, valid=valid, epochs=2, jit=jit)
    run = ft.fit(learner, state, train=theirs, valid=DataLoader(Rows(train.dataset), 16), epochs=2, jit=jit)
    assert not tree.differences(run.state, ours.state, rtol=1e-4, atol=1e-5)
    assert run.history["valid/loss"] == pytest.approx(ours.history["valid/loss"], rel=1e-5)
    assert ft.evaluate(learner, state, theirs, jit=jit)["loss"] == pytest.approx(
        ft.evaluate(learner, state, loader, jit=jit)["loss"], rel=1e-6
    )


@BOTH
def test_a_generator_trains_for_steps(jit):
    learner, state, train, _ = problem()
    ours = ft.fit(learner, state, train=batches_of(train), epochs=1, jit=jit)
    run = ft.fit(learner, state, train=(batch for batch in batches_of(train)), steps=7, jit=jit)
    assert not tree.differences(run.state, ours.state, rtol=1e-4, atol=1e-5)
    with pytest.raises(SourceEnded, match="train gave 7 batches, and 8 were planned"):
        ft.fit(learner, state, train=(batch for batch in batches_of(train)), steps=8, jit=jit)
    with pytest.raises(InvalidArgument, match="train has no length"):
        ft.fit(learner, state, train=iter(batches_of(train)), epochs=1, jit=jit)


@BOTH
def test_steps_of_a_loader_may_end_in_an_epoch(jit):
    learner, state, train, valid = problem()
    run = ft.fit(learner, state, train=train, valid=valid, steps=10, jit=jit, callbacks=[callbacks.record()])
    assert (int(run.state.step), int(run.state.updates), run.history["epoch"]) == (10, 10, [1, 2])
    assert run.memory["record"]["step"].tolist() == list(range(10))
    assert run.progress.position == 1.0 and run.finished


def test_going_on_with_what_is_no_loader_says_what_it_cannot_promise():
    learner, state, train, _ = problem()
    batches = DataLoader(TensorDataset(*train.dataset.arrays), batch_size=8)
    stopped = eager(learner, state, batches, epochs=1, callbacks=[stopping_at(3)])
    on = eager(learner, stopped, batches, epochs=None, callbacks=[stopping_at(3)])
    assert int(on.state.step) == 7
    assert "train is no Loader" in on.notes[0] and "train is no Loader" in repr(on)


@BOTH
@pytest.mark.parametrize("remainder", ["keep", "pad", "drop"])
def test_predictions_are_in_the_order_of_the_loader_without_padding(jit, remainder):
    learner, state, train, _ = problem()
    inputs = train.dataset.arrays[0]
    expected, _ = learner.model.apply(state.params, state.buffers, inputs)
    got = ft.predict(learner, state, data.loader(train.dataset, data.sequential(8, remainder)), jit=jit)
    torch.testing.assert_close(got, expected[: len(got)])
    assert len(got) == (48 if remainder == "drop" else 50)
    torch.testing.assert_close(ft.predict(learner, state, inputs[:5], jit=jit), expected[:5])


@BOTH
def test_bfloat16_is_near_float32_and_keeps_the_dtypes(jit):
    model = nn.serial(nn.dense(32), nn.batch_norm(), nn.relu, nn.dense(3))
    learner, state, train, valid = problem(model=model, optimizer=optim.sgd(0.1))
    whole = ft.fit(learner, state, train=train, valid=valid, epochs=3, jit=jit)
    short = ft.fit(learner, state, train=train, valid=valid, epochs=3, jit=jit, precision="bfloat16")
    dtypes = [leaf.dtype for leaf in tree.leaves(whole.state)]
    assert [leaf.dtype for leaf in tree.leaves(short.state)] == dtypes
    assert not tree.equal(short.state.params, whole.state.params)
    assert short.history["train/loss"] == pytest.approx(whole.history["train/loss"], rel=0.05)
    prediction = ft.predict(learner, whole.state, train.dataset.arrays[0], jit=jit, precision="bfloat16")
    assert prediction.dtype == torch.float32


@BOTH
def test_state_and_batches_are_moved_to_a_device(jit):
    learner, state, train, _ = problem()
    run = ft.fit(learner, state, train=train, valid=batches_of(train), epochs=1, jit=jit, device="cpu")
    assert tree.equal(run.state, ft.fit(learner, state, train=train, epochs=1, jit=jit).state)


def test_inductor_compiles_the_first_shape_and_says_what_ran_otherwise(monkeypatch):
    from functrain.train.looping import chunks

    backends = []
    monkeypatch.setattr(chunks, "compile_step", lambda f, donate, backend: backends.append(backend) or f)
    learner, state, train, _ = problem(model=nn.dense(3))
    run = ft.fit(learner, state, train=train, epochs=1, jit="inductor", chunk=1)
    assert backends == ["inductor", "aten"]
    assert run.notes == ("batches of another shape than the first ran by 'aten'; compile_shapes='all' compiles each",)
    assert run.notes[0] in repr(run)
    backends.clear()
    run = ft.fit(learner, state, train=train, epochs=1, jit="inductor", chunk=1, compile_shapes="all")
    assert "aten" not in backends and run.notes == ()


def test_the_bar_prints_no_lines_beside_a_table(capsys):
    import io

    from rich.console import Console

    learner, state, train, valid = problem(n=16)
    for shown in (True, False):
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=True, width=120)
        beside = [] if shown else [callbacks.print_table(console=Console(file=io.StringIO()))]
        eager(learner, state, train, valid, callbacks=[callbacks.progress(console), *beside])
        assert ("train/loss" in screen.getvalue()) == shown


def test_preflight_runs_the_model_once_a_loader():
    calls = []

    def watched(x):
        calls.append(len(x))
        return x

    rows = data.ArrayDataset((torch.randn(16, 4), torch.randn(16, 1)))
    learner = ft.Learner(nn.serial(watched, nn.dense(1)), losses.mse, optim.sgd(0.1))
    state = ft.init(learner, ft.random.key(0), rows[:1])
    calls.clear()
    loader = data.loader(rows, data.sequential(8))
    seen = []
    begun = ft.Callback("begun", {"begin_fit": lambda run: seen.append(len(calls))})
    eager(learner, state, loader, loader, callbacks=[begun])
    assert seen == [2]
