"""What comes again is the same, bit for bit; and where two runs part."""

import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import torch
from again import journey

import functrain as ft
from functrain import checkpoint, data, losses, nn, optim, time_travel, tree
from functrain.errors import InvalidArgument, NoCheckpoint, RunMismatch, TreeMismatch
from functrain.time_travel import debug, diff, fork, past, replay


def watched(fit, state, taking_part):
    """Return the states between the chunks by step."""
    moments = []

    def boundary(run):
        moments.append((int(run.state.step), tree.clone(run.state)))

    fit(state, callbacks=[*taking_part, ft.Callback("watch", {}, boundary=boundary)])
    return dict(moments)


@pytest.fixture(scope="module", params=[False, "aten"])
def travelled(request, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("run") / "run")
    before, fit, state, taking_part = journey(folder, request.param)
    run = fit(state, callbacks=taking_part)
    return before, run, watched(fit, state, taking_part[:-1]), request.param


def test_every_step_is_as_the_chunks_had_it(travelled):
    before, run, chunks, _ = travelled
    total = len(run.memory["record"]["loss"])
    for step in range(total):
        moment = replay(before, step)
        assert int(moment.state.step) == step == moment.step
        if step in chunks:
            assert not tree.differences(moment.state, chunks[step]), step
        train, start = before.options["train"], before.state
        epoch, batch = divmod(step, len(train))
        expected = next(iter(data.batches(train, ft.train.data_key(start), epoch, batch)))
        assert not tree.differences(moment.batch, expected)
        assert torch.equal(moment.key, ft.random.fold_in(start.key, torch.tensor(step)))
    assert {step for step in chunks if step < total} - set(range(0, total, len(train)))  # some within the epochs


def test_the_step_again_gives_what_the_record_has(travelled):
    before, run, *_, jit = travelled
    if jit:
        pytest.skip("the step is taken in plain Python here")
    step = ft.train_step(before.learner)
    for at in (0, 6, 7, 9):
        moment = replay(before, at)
        after, logs = step(moment.state, moment.batch)
        assert float(logs["loss"]) == float(run.memory["record"]["loss"][at])
        assert not tree.differences(after, replay(before, at + 1).state)


def test_a_moment_can_be_gone_on_from(travelled):
    before, run, *_ = travelled
    for step in (0, 3, 7, 9):
        options = {n: v for n, v in before.options.items() if n not in ("callbacks", "epochs")}
        callbacks = list(time_travel.pasts.taking_part(before))
        again = ft.fit(before.learner, replay(before, step).run, callbacks=callbacks, **options)
        assert not tree.differences(again.state, run.state) and again.history == run.history, step
        assert not tree.differences(again.memory["record"], run.memory["record"])


def test_in_a_new_process(travelled):
    before, *_, jit = travelled
    script = Path(__file__).with_name("again.py")
    step = 8  # inside a chunk
    subprocess.run([sys.executable, script, before.source, str(jit), str(step)], check=True, timeout=300)
    moment = replay(before, step)
    saved = checkpoint.restore(f"{before.source}-moment", [moment.state, moment.batch, moment.key])
    assert not tree.differences(saved, [moment.state, moment.batch, moment.key])


def test_replaying_saves_nothing(travelled):
    before, *_ = travelled
    entries = checkpoint.entries(before.source)
    replay(before, 11)
    assert checkpoint.entries(before.source) == entries


def test_debug_takes_one_step_in_plain_python(travelled):
    before, run, *_ = travelled
    seen = []
    handlers = {
        "after_loss": lambda step: seen.append(float(step.loss)),
        "after_grads": lambda step: seen.append(step),
    }
    after = debug(before, 9, handlers)
    assert int(after.state.step) == 10 and len(seen) == 2 and seen[1].grads is not None
    assert seen[0] == pytest.approx(float(run.memory["record"]["loss"][9]), rel=1e-5)
    assert float(after.logs["loss"][0]) == pytest.approx(seen[0], rel=1e-6)
    assert not tree.differences(after.state, replay(before, 10).state, rtol=1e-4, atol=1e-5)


# A run in memory, and its forks


def problem(lr=0.1, **options):
    rows = data.ArrayDataset((torch.randn(24, 3, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 2))
    learner = ft.Learner(nn.serial(nn.dense(4), nn.relu, nn.dense(2)), losses.cross_entropy, optim.adam(lr))
    state = ft.init(learner, ft.random.key(0), rows[:1])
    return learner, dict(state=state, train=data.loader(rows, data.shuffled(4)), epochs=2, **options)


def tripled(run):
    return attrs.evolve(run, state=attrs.evolve(run.state, params=tree.map(lambda p: 3 * p, run.state.params)))


def test_a_fork_leaves_the_run_where_it_says():
    learner, options = problem()
    before = past(learner, **options)
    still = ft.fit(learner, fork(before, 7, lambda run: run), train=options["train"])
    forked = ft.fit(learner, fork(before, 7, tripled), train=options["train"])
    whole = ft.fit(learner, options["state"], train=options["train"], epochs=2)
    assert tree.equal(still.state, whole.state) and not tree.equal(forked.state, whole.state)
    assert still.history == whole.history and forked.history[0] == whole.history[0]


def test_a_fork_may_change_the_batch_where_a_callback_looks_at_it():
    looking = ft.Callback("look", {"begin_batch": lambda run: None})
    learner, options = problem(callbacks=[looking])

    def emptied(run):
        return attrs.evolve(run, batch=attrs.evolve(run.batch, weight=torch.zeros(4)))

    forked = fork(past(learner, **options), 7, emptied)
    after = ft.fit(learner, forked, train=options["train"], callbacks=[looking])
    whole = ft.fit(learner, options["state"], train=options["train"], epochs=2)
    assert int(after.state.updates) == int(whole.state.updates) - 1


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (lambda run: None, InvalidArgument, "edit must return a Run, as attrs.evolve"),
        (lambda run: attrs.evolve(run, plan=ft.train.Plan()), InvalidArgument, "and it changed plan"),
        (lambda run: attrs.evolve(run, batch=3), InvalidArgument, "changed batch; a begin_batch handler can replace"),
        (lambda run: attrs.evolve(run, state={"w": 1}), TreeMismatch, "the state that edit returned"),
    ],
)
def test_edits_that_are_refused(edit, error, message):
    learner, options = problem()
    with pytest.raises(error, match=message):
        fork(past(learner, **options), 3, edit)


def test_a_run_and_what_was_saved_of_one(tmp_path):
    learner, options = problem()
    before = past(learner, **options)
    early = replay(before, 4).run
    checkpoint.save(tmp_path / "early", early, info={"step": 4})
    again = {n: v for n, v in options.items() if n not in ("state", "epochs")}
    for source in (early, checkpoint.restore(tmp_path / "early")):
        moment = replay(past(learner, source, **again), 9)
        assert tree.equal(moment.state, replay(before, 9).state) and tree.equal(moment.batch, replay(before, 9).batch)
        with pytest.raises(InvalidArgument, match=r"step 3: the earliest start is step 4; pass state="):
            replay(past(learner, source, **again), 3)


def test_a_loop_of_ones_own():
    def step(carry, batch):
        return {"n": carry["n"] + batch.input.sum()}, {}

    rows = data.ArrayDataset((torch.randn(12, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(12)))
    options = dict(state={"n": torch.tensor(0.0)}, train=data.loader(rows, data.shuffled(2)), epochs=2)
    before = past(step, key=ft.random.key(3), **options)
    for at in (0, 5, 6, 11):
        moment = replay(before, at)
        whole = ft.loop(step, moment.run, key=ft.random.key(3), train=options["train"]).state
        assert moment.key is None and torch.equal(
            whole["n"], replay(before, 11).state["n"] + replay(before, 11).batch.input.sum()
        )
    with pytest.raises(InvalidArgument, match="'after_loss' is no event of this step"):
        debug(before, 3, {"after_loss": print})
    assert float(debug(before, 3).state["n"]) == float(replay(before, 4).state["n"])


# What cannot be


def test_steps_that_there_are_not(tmp_path):
    learner, options = problem()
    with pytest.raises(InvalidArgument, match="the run takes no step 12; it ended after 12 batches"):
        replay(past(learner, **options), 12)
    with pytest.raises(InvalidArgument, match="step must be a whole number of at least 0, got -1"):
        replay(past(learner, **options), -1)
    with pytest.raises(NoCheckpoint, match="step 3: there is no checkpoint in "):
        replay(past(learner, tmp_path, train=options["train"]), 3)
    with pytest.raises(InvalidArgument, match="pass the folder of checkpoints, a Saved, a Run, or state="):
        past(learner, train=options["train"])
    with pytest.raises(InvalidArgument, match="source must be a folder of checkpoints, a Saved or a Run, got int"):
        past(learner, 3)


def test_other_callbacks_than_the_runs():
    learner, options = problem(callbacks=[ft.Callback("mine", {})])
    run = replay(past(learner, **options), 4).run
    with pytest.raises(RunMismatch, match="callbacks"):
        replay(past(learner, run, train=options["train"]), 6)


# Where two runs part


@pytest.mark.parametrize("folders", [False, True])
def test_where_two_runs_part(tmp_path, folders):
    learner, options = problem()
    saving = ft.callbacks.save_checkpoints(tmp_path / "a", every=3, keep_last=None)
    poisoned = ft.Callback("save_checkpoints", {"begin_step": lambda step: at_step(step, 7)})
    begun = dict(options, callbacks=[saving])
    ft.fit(learner, options["state"], train=options["train"], epochs=2, callbacks=[saving])
    a = past(learner, tmp_path / "a" if folders else None, **begun)
    assert diff(a, a) is None
    found = diff(a, past(learner, **dict(options, callbacks=[poisoned])))
    assert (found.step, found.what, found.path) == (8, "state", "params.0.weight")
    assert "the runs differ before step 8, first in the state:\n  params.0.weight at " in repr(found)


def at_step(step, number):
    """Return the step whose first parameter is off by one bit at one step."""
    off = tree.map(lambda p: torch.where(step.state.step == number, p * (1 + 2e-7), p), step.state.params)
    return attrs.evolve(step, state=attrs.evolve(step.state, params=off))


def test_another_order_of_the_data_and_another_end():
    learner, options = problem()
    a = past(learner, **options)
    rows = data.loader(options["train"].dataset, data.sequential(4))
    found = diff(a, past(learner, **dict(options, train=rows)))
    assert (found.step, found.what, found.path) == (0, "batch", "input")
    stopping = ft.Callback("stop", {"after_batch": lambda run: ft.Stop(run, scope="fit", when=run.step == 2)})
    plain = ft.Callback("stop", {})
    ends = [past(learner, **dict(options, callbacks=[one])) for one in (plain, stopping)]
    for pair in (ends, ends[::-1]):
        found = diff(*pair)
        assert (found.step, found.what) == (2, "end")
        assert any("goes on" in line for line in found.lines) and any("stop" in line for line in found.lines)


def test_folders_are_compared_from_their_last_common_checkpoint(tmp_path, monkeypatch):
    learner, options = problem()
    for name in ("a", "b"):
        saving = ft.callbacks.save_checkpoints(tmp_path / name, every=3, keep_last=None)
        ft.fit(learner, options["state"], train=options["train"], epochs=2, callbacks=[saving], chunk=1)
    again = dict(train=options["train"], callbacks=[ft.Callback("save_checkpoints", {})])
    assert time_travel.differing._same_until(*(past(learner, tmp_path / name, **again) for name in "ab")) == 12
    assert diff(*(past(learner, tmp_path / name, **again) for name in "ab"), start=4) is None


@pytest.mark.parametrize("jit", [False, "aten"])
def test_batches_in_a_list_come_again_from_any_checkpoint(tmp_path, jit):
    learner, options = problem(jit=jit)
    options["train"] = list(data.batches(options["train"], ft.random.key(5)))
    saving = ft.callbacks.save_checkpoints(tmp_path, every=4, keep_last=None)
    ft.fit(learner, callbacks=[saving], **options)
    before = past(learner, str(tmp_path), callbacks=[saving], **options)
    step, state = ft.train_step(learner), options["state"]
    for k in range(12):
        moment = replay(before, k)
        assert tree.equal(moment.batch, options["train"][k % 6])
        if jit:
            continue
        assert tree.equal(moment.state.params, state.params)
        state, _ = step(moment.state, moment.batch)


def unsure(batches):
    return {
        "generator": lambda: (batch for batch in batches),
        "DataLoader": lambda: torch.utils.data.DataLoader(batches, batch_size=None),
        "zip": lambda: zip(*zip(*batches, strict=True), strict=True),
    }


@pytest.mark.parametrize("kind", ["generator", "DataLoader", "zip"])
@pytest.mark.parametrize("phase", ["train", "valid"])
def test_a_source_that_may_give_others_is_refused(kind, phase):
    learner, options = problem()
    batches = [(batch.input, batch.target) for batch in data.batches(options["train"], ft.random.key(5))]
    options |= {"valid": batches, phase: unsure(batches)[kind]()}
    before = past(learner, **options)
    message = rf"{phase} must be a Loader or a list, which gives the same .* got {kind}\. .*list\(batches\)"
    for travel in (lambda: replay(before, 1), lambda: debug(before, 1), lambda: diff(before, before)):
        with pytest.raises(InvalidArgument, match=message):
            travel()
