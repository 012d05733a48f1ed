"""A run that was saved anywhere and restored, in another process too, ends as the uninterrupted one, to the bit."""

import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import attrs
import pytest
import torch
from long_run import fitting
from training_problems import problem, stopping_at

import functrain as ft
from functrain import callbacks, checkpoint, data, metrics, testing, tree
from functrain.errors import InvalidArgument, NewerFormat, RunMismatch, TreeMismatch

WAYS = [(False, 1), (False, 3), ("aten", 3), ("aten", 1)]


@pytest.mark.parametrize("law", ["boundaries", "stops"])
@pytest.mark.parametrize(("jit", "chunk"), WAYS)
def test_everything_at_once(jit, chunk, law):
    fit, state, taking_part = fitting(jit, chunk)
    whole = fit(state, callbacks=taking_part)
    assert whole.stopped is None or whole.stopped.callback == "early_stopping"
    assert "train/drift" in whole.history.columns and len(whole.memory["record"]["loss"]) >= 10
    testing.resume_laws(fit, state, taking_part)[law]()


@pytest.mark.parametrize("jit", [False, "aten"])
def test_a_stop_inside_a_chunk_at_every_step(tmp_path, jit):
    fit, state, taking_part = fitting(jit, chunk=4)
    whole = fit(state, callbacks=[*taking_part, stopping_at(-1)])
    for step in range(len(whole.memory["record"]["loss"])):
        path = tmp_path / "run"
        checkpoint.save(path, fit(state, callbacks=[*taking_part, stopping_at(step)]))
        resumed = fit(checkpoint.restore(path), callbacks=[*taking_part, stopping_at(step)])
        assert tree.differences(whole.state, resumed.state) == [], step
        assert whole.history == resumed.history
        for name in ("ema", "early_stopping", "record"):
            assert tree.differences(whole.memory[name], resumed.memory[name]) == [], (step, name)


@pytest.mark.parametrize(("jit", "chunk"), [(False, 3), ("aten", 3)])
def test_in_a_new_process(tmp_path, jit, chunk):
    fit, state, taking_part = fitting(jit, chunk)
    guest = ft.Callback("a guest", {})
    whole = fit(state, callbacks=[*taking_part, guest])

    def boundary(run):
        if run.epoch == 1 and (run.phase != "train" or run.step in (2, 4)):
            checkpoint.add(tmp_path, run)

    fit(state, callbacks=[*taking_part, attrs.evolve(guest, boundary=boundary)])
    script = Path(__file__).with_name("long_run.py")
    subprocess.run([sys.executable, script, tmp_path, str(jit), str(chunk)], check=True, timeout=300)
    ended = checkpoint.entries(tmp_path / "ended")
    assert len(ended) == len(checkpoint.entries(tmp_path)) >= 3
    for entry in ended:
        saved = checkpoint.restore(entry.path)
        assert tree.equal(checkpoint.into(checkpoint.part(saved, "state"), state), whole.state)
        rows = checkpoint.into(checkpoint.part(checkpoint.part(saved, "history"), "rows"), checkpoint.Anything())
        assert rows == tuple(dict(row) for row in whole.history)
        record = checkpoint.into(checkpoint.part(checkpoint.part(saved, "memory"), "record"), checkpoint.Anything())
        assert tree.equal(record, whole.memory["record"])


# A step of one's own


@tree.node
class Pair:
    """A carry with a record in it."""

    total: torch.Tensor
    steps: torch.Tensor


WORST = metrics.Metric(
    init=lambda device=None: Pair(torch.zeros((), device=device), torch.zeros((), device=device)),
    measure=lambda prediction, target: prediction,
    add=lambda acc, values, weight=None: Pair(torch.maximum(acc.total, values.max()), acc.steps + 1),
    merge=lambda a, b: Pair(torch.maximum(a.total, b.total), a.steps + b.steps),
    compute=lambda acc: (acc.total + acc.steps).double(),
)


def own_step(carry, batch):
    total = carry.total * 0.9 + batch.input.sum()
    worst = ft.Measured(WORST, WORST.update(WORST.init(), batch.input, None))
    return Pair(total, carry.steps + 1), {"mean": batch.input.mean(), "worst": worst}


def own_evaluate(carry, batch):
    return own_step(carry, batch)[1]


def own_loop(jit="aten"):
    rows = data.ArrayDataset((torch.randn(14, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(14)))
    carry = Pair(torch.tensor(0.0), torch.tensor(0))
    options = dict(key=ft.random.key(1), train=data.loader(rows, data.shuffled(2)), epochs=2, jit=jit, chunk=3)
    options |= dict(
        valid=data.loader(rows, data.sequential(4)), evaluate=lambda carry, batch: own_step(carry, batch)[1]
    )
    return partial(ft.loop, own_step, **options), carry


@pytest.mark.parametrize("jit", [False, "aten"])
def test_a_loop_with_a_step_of_ones_own(jit):
    loop, carry = own_loop(jit)
    testing.check_resume(partial(loop, like=carry), carry, [callbacks.record()])


class Again:
    """Batches that are no list, which can be gone through again."""

    def __init__(self, loader):
        self.loader = loader

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        return iter(list(data.batches(self.loader)))


@pytest.mark.parametrize("kind", [lambda loader: loader, Again, lambda loader: list(data.batches(loader))])
def test_what_was_measured_is_computed_by_its_own_metric_where_no_batch_follows(tmp_path, kind):
    """Though a file of means does not say of what they are."""
    base = metrics.mean(lambda prediction, target: prediction)
    perplexity = attrs.evolve(base, compute=lambda acc: (acc.total / acc.weight).exp())

    def step(carry, batch):
        measured = perplexity.update(perplexity.init(), batch.input[:, 0], batch.target)
        return carry + 1, {"perplexity": ft.Measured(perplexity, measured), "one": batch.target.mean()}

    loader = data.loader(data.ArrayDataset((torch.ones(6, 1), torch.ones(6))), data.sequential(2))
    stop = ft.Callback("stop", {"after_batch": lambda run: ft.Stop(run, scope="fit", when=run.step == len(loader))})
    loop = partial(ft.loop, step, train=kind(loader), epochs=1, jit=False, callbacks=[stop])
    checkpoint.save(tmp_path / "run", loop(torch.tensor(0), key=ft.random.key(0)))
    run = loop(checkpoint.restore(tmp_path / "run"))
    assert run.history["train/perplexity"] == pytest.approx([math.e]) and run.history["train/one"] == [1.0]


def test_a_carry_of_records_needs_a_like(tmp_path):
    loop, carry = own_loop()
    checkpoint.save(tmp_path / "a", loop(carry))
    with pytest.raises(InvalidArgument, match=r"a: state has records.* pass like=, a carry to begin with"):
        loop(checkpoint.restore(tmp_path / "a"))
    with pytest.raises(
        TreeMismatch, match=r"than `like`, a carry of this step:\n  total: expected float32\(2,\), saved"
    ):
        loop(checkpoint.restore(tmp_path / "a"), like=Pair(torch.zeros(2), torch.tensor(0)))
    checkpoint.save(tmp_path / "b", {"n": 1})
    with pytest.raises(InvalidArgument, match=r"b holds no run, but n; checkpoint.into\(saved, like\)"):
        loop(checkpoint.restore(tmp_path / "b"))


# What does not fit


@pytest.fixture
def saved(tmp_path):
    learner, state, train, valid = problem()
    options = dict(train=train, valid=valid, jit=False, callbacks=[stopping_at(3)])
    checkpoint.save(tmp_path / "run", ft.fit(learner, state, epochs=2, **options))
    return learner, state, options, checkpoint.restore(tmp_path / "run")


def test_another_model_or_optimizer_is_named_by_paths_and_shapes(saved):
    learner, _, options, run = saved
    wider, *_ = problem(model=ft.nn.serial(ft.nn.dense(7), ft.nn.relu, ft.nn.dense(3)))
    with pytest.raises(TreeMismatch, match="the state of this learner, and was saved with another model") as caught:
        ft.fit(wider, run, **options)
    assert "params.0.weight: expected float32(7, 4), saved float32(6, 4)" in str(caught.value)
    assert "params.1.weight: expected nothing, saved float32(6,)" in str(caught.value)
    adam = attrs.evolve(learner, optimizer=ft.optim.adam(0.1))
    with pytest.raises(TreeMismatch, match=r"opt_state\.\S+: expected float32\S+ saved nothing"):
        ft.fit(adam, run, **options)


def test_other_metrics_and_memories_are_named(saved):
    learner, _, options, run = saved
    with pytest.raises(TreeMismatch, match=r"than a tally of these metrics:\n  added.top.total: .*saved nothing"):
        ft.fit(attrs.evolve(learner, metrics={"top": metrics.top_k(2)}), run, **options)
    two = attrs.evolve(stopping_at(3), memory=torch.zeros(2, dtype=torch.int64))
    with pytest.raises(TreeMismatch, match=r"the memory of callback 'at':\n.*expected int64\(2,\), saved int64\(\)"):
        ft.fit(learner, run, **{**options, "callbacks": [two]})
    with pytest.raises(RunMismatch, match=r"begun with callbacks \['at'\], and now callbacks \[\]"):
        ft.fit(learner, run, **{**options, "callbacks": []})


def test_a_record_that_comes_later_must_be_named(tmp_path):
    learner, state, train, _ = problem()

    def after_epoch(run):
        return ft.train.remember(run, "late", Pair(torch.tensor(1.0), torch.tensor(run.epoch)))

    late = ft.Callback("late", {"after_epoch": after_epoch}, memory=None)
    options = dict(train=train, jit=False)
    checkpoint.save(tmp_path / "a", ft.fit(learner, state, epochs=1, callbacks=[late], **options))
    run = checkpoint.restore(tmp_path / "a")
    with pytest.raises(TreeMismatch, match=r"callback 'late'; a class .* is named in Callback\(records=...\)"):
        ft.fit(learner, run, callbacks=[late], **options)
    known = attrs.evolve(late, records=[Pair])
    assert isinstance(ft.fit(learner, run, callbacks=[known], **options).memory["late"], Pair)


def test_a_saved_state_begins_a_new_run_and_anything_else_is_refused(saved, tmp_path):
    learner, state, options, _ = saved
    checkpoint.save(tmp_path / "state", state)
    run = ft.fit(learner, checkpoint.restore(tmp_path / "state"), epochs=1, **options)
    assert tree.equal(run.state, ft.fit(learner, state, epochs=1, **options).state)
    checkpoint.save(tmp_path / "other", {"n": 1})
    with pytest.raises(InvalidArgument, match="other holds neither a run nor a training state, but n"):
        ft.fit(learner, checkpoint.restore(tmp_path / "other"), epochs=1, **options)


def test_a_run_of_a_newer_functrain(saved):
    learner, _, options, run = saved
    newer = attrs.evolve(run, outline={"record": [*run.outline["record"], ["later", 1]]})
    with pytest.raises(NewerFormat, match="has 'later', which this functrain does not know"):
        ft.fit(learner, newer, **options)


def test_a_run_saved_before_a_field_was_added(saved):
    learner, _, options, run = saved
    pairs = [pair for pair in run.outline["record"] if pair[0] != "notes"]
    assert ft.fit(learner, attrs.evolve(run, outline={"record": pairs}), **options).finished


def test_batches_that_cannot_be_had_before_training(tmp_path):
    learner, state, train, _ = problem()
    batches = [next(iter(data.batches(train, ft.random.key(0), 0, n))) for n in range(4)]

    class Again:
        def __iter__(self):
            return iter(batches)

    options = dict(train=Again(), jit=False, callbacks=[stopping_at(3)])
    checkpoint.save(tmp_path / "a", ft.fit(learner, state, steps=4, **options))
    run = ft.fit(learner, checkpoint.restore(tmp_path / "a"), **options)
    assert run.finished and "train is no Loader" in run.notes[0]
    adam = attrs.evolve(learner, optimizer=ft.optim.adam(0.1))
    with pytest.raises(TreeMismatch, match="opt_state"):
        ft.fit(adam, checkpoint.restore(tmp_path / "a"), **options)


def test_a_run_that_was_saved_on_an_accelerator_goes_on_where_the_data_is(saved):
    learner, _, options, run = saved
    away = attrs.evolve(run, devices=dict.fromkeys(run.devices, "cuda:1"))
    here, there = (ft.fit(learner, one, **options) for one in (run, away))
    assert set(run.devices.values()) == {"cpu"}
    assert tree.equal(here.state, there.state) and tree.equal(here.memory, there.memory)


def test_a_loop_that_saves_itself(tmp_path):
    loop, carry = own_loop()
    whole = loop(carry, callbacks=[ft.Callback("fails", {}), callbacks.record()])

    def fails(run):
        if run.epoch == 1:
            raise RuntimeError("the machine is gone")

    saving = callbacks.save_checkpoints(tmp_path, every=2)
    with pytest.raises(RuntimeError):
        loop(carry, callbacks=[ft.Callback("fails", {"after_validate": fails}), callbacks.record(), saving])
    last = checkpoint.latest(tmp_path)
    run = loop(last, like=carry, callbacks=[ft.Callback("fails", {}), callbacks.record(), saving])
    assert last.info["step"] == 14 and tree.equal(run.state, whole.state) and run.history == whole.history
    assert tree.equal(run.memory["record"], whole.memory["record"])
