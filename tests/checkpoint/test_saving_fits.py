"""A fit that saves: when, what is kept, what is refused before anything is trained, and what goes wrong meanwhile."""

import errno
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
from saving_problem import numbers, problem

import functrain as ft
from functrain import callbacks, checkpoint, data, tree
from functrain.callbacks import save_checkpoints
from functrain.checkpoint import holding
from functrain.checkpoint.format import writing
from functrain.errors import CannotSave, CorruptFile, InvalidArgument, NewerFormat, NotSavable


def steps(folder):
    return [entry.info["step"] for entry in checkpoint.entries(folder)]


# When, and what stays


def test_after_each_epoch_and_in_the_end(tmp_path):
    fit, state = problem()
    run = fit(state, callbacks=[save_checkpoints(tmp_path / "run", keep_last=None)])
    found = checkpoint.entries(tmp_path / "run")
    assert [entry.info["step"] for entry in found] == [7, 14, 21, 28]
    assert [entry.info["epoch"] for entry in found] == [1, 2, 3, 4]
    assert [entry.info["valid/loss"] for entry in found] == run.history["valid/loss"]  # the row is in the history
    assert fit(checkpoint.latest(tmp_path / "run"), callbacks=[save_checkpoints(tmp_path / "run")]).finished
    assert len(checkpoint.entries(tmp_path / "run")) == 4  # a finished run comes back, and nothing is saved


@pytest.mark.parametrize(("every", "chunk", "expected"), [(5, 1, [5, 10, 14]), (5, 3, [6, 10, 14]), (100, 3, [14])])
def test_after_some_batches_at_the_end_of_the_chunk(tmp_path, every, chunk, expected):
    fit, state = problem(epochs=2, chunk=chunk)
    fit(state, callbacks=[save_checkpoints(tmp_path, every=every, keep_last=None)])
    assert steps(tmp_path) == expected


def test_a_run_that_saves_is_the_run_that_does_not(tmp_path):
    fit, state = problem()
    saving = fit(state, callbacks=[save_checkpoints(tmp_path, every=3), callbacks.record()])
    assert not tree.differences(numbers(saving), numbers(fit(state, callbacks=[callbacks.record()])))


def test_the_last_and_the_best_stay(tmp_path):
    fit, state = problem(epochs=6)
    run = fit(state, callbacks=[save_checkpoints(tmp_path, keep_last=1, keep_best=2)])
    losses_seen = run.history["valid/loss"]
    best = sorted(range(6), key=lambda epoch: losses_seen[epoch])[:2]
    assert steps(tmp_path) == sorted({*(7 * (epoch + 1) for epoch in best), 42})


@pytest.mark.parametrize("jit", [False, "aten"])
def test_a_script_that_is_started_again_goes_on_where_it_was(tmp_path, jit):
    fit, state = problem(jit)
    saving = save_checkpoints(tmp_path / "run", every=4)

    def fails(at):
        def begin_epoch(run):
            if run.epoch == at:
                raise RuntimeError("the machine is gone")

        return ft.Callback("fails", {"begin_epoch": begin_epoch})

    whole = fit(state, callbacks=[fails(-1), callbacks.record()])
    for at in (1, 2, 3, -1):
        try:
            run = fit(checkpoint.latest(tmp_path / "run") or state, callbacks=[fails(at), callbacks.record(), saving])
        except RuntimeError:
            continue
    assert not tree.differences(numbers(run), numbers(whole))


def test_the_snapshot_is_of_the_boundary_though_the_memory_is_reused(tmp_path, monkeypatch):
    fit, state = problem(chunk=1, epochs=1)
    go_on = threading.Event()
    write = os.pwrite
    monkeypatch.setattr(writing.os, "pwrite", lambda *arguments: go_on.wait(20) and write(*arguments))

    def after_batch(run):
        if run.step == 6:  # the first checkpoint is not written before the memory was overwritten three times
            go_on.set()

    slow = ft.Callback("slow", {"after_batch": after_batch}, keeps_state=False)
    fit(state, callbacks=[save_checkpoints(tmp_path, every=3, keep_last=None), slow])
    first = checkpoint.restore(checkpoint.entries(tmp_path)[0].path)
    expected = fit(state, callbacks=[ft.Callback("stop", {"after_batch": stop_at(3)})]).state
    assert first.info["step"] == 3
    assert tree.equal(checkpoint.into(checkpoint.part(first, "state"), state), expected)


def stop_at(step):
    return lambda run: ft.Stop(run, scope="fit", reason="enough", when=int(run.state.step) == step)


def test_a_stop_is_saved_too_and_says_why(tmp_path):
    fit, state = problem()
    stopping = ft.Callback("stop", {"after_batch": stop_at(10)})
    run = fit(state, callbacks=[save_checkpoints(tmp_path), stopping])
    saved = checkpoint.latest(tmp_path)
    assert saved.info["step"] == 10 and "enough" in saved.info["stopped"] and saved.info["epoch"] == 1
    still = [save_checkpoints(tmp_path), ft.Callback("stop", {})]
    assert not tree.differences(
        numbers(fit(saved, callbacks=still)), numbers(fit(run, callbacks=[*still[1:], quiet()]))
    )


@pytest.mark.parametrize("jit", [False, "aten"])
def test_a_run_that_early_stopping_ended_is_finished_whenever_the_script_is_started_again(tmp_path, jit):
    fit, state = problem(jit, epochs=9)

    def script():
        early = callbacks.early_stopping("valid/loss", patience=1, mode="max", restore_best=True)
        taking_part = [early, callbacks.record(), save_checkpoints(tmp_path, every=4), ft.Callback("look", looking)]
        return fit(checkpoint.latest(tmp_path) or state, callbacks=taking_part)

    looking = {"begin_epoch": lambda run: 1 / 0 if run.epoch == 1 else None}
    with pytest.raises(ZeroDivisionError):
        script()
    looking = {"begin_epoch": lambda run: None}
    ended = script()
    assert ended.finished and ended.stopped.scope == "run" and len(ended.history) == 2
    assert str(ended.stopped).startswith("run stopped by 'early_stopping' at after_epoch, epoch 2: valid/loss has not")
    looking = {"begin_epoch": lambda run: 1 / 0, "after_fit": lambda run: 1 / 0}
    entries = checkpoint.entries(tmp_path)
    for _ in range(2):
        again = script()
        assert not tree.differences(numbers(again), numbers(ended)) and again.stopped == ended.stopped
        assert tree.equal(again.point.state, ended.point.state) and again.finished
    assert checkpoint.entries(tmp_path) == entries, "nothing is saved again"


def test_a_cluster_that_sends_sigterm(tmp_path):
    fit, state = problem()
    whole = fit(state, callbacks=[ft.Callback("scheduler", {}), ft.Callback("stop_on_signal", {})])

    def after_epoch(run):
        os.kill(os.getpid(), signal.SIGTERM)

    taking_part = [save_checkpoints(tmp_path), ft.Callback("scheduler", {"after_epoch": after_epoch})]
    run = fit(state, callbacks=[*taking_part, callbacks.stop_on_signal()])
    assert run.stopped is not None and not run.finished
    saved = checkpoint.latest(tmp_path)
    assert "SIGTERM" in saved.info["stopped"]
    still = [taking_part[0], ft.Callback("scheduler", {}), callbacks.stop_on_signal()]
    assert not tree.differences(
        numbers(fit(saved, callbacks=still), "stop_on_signal"), numbers(whole, "stop_on_signal")
    )


def quiet():
    return ft.Callback("save_checkpoints", {}, order=-1)


# Refused before anything is trained


@pytest.fixture
def untouched():
    def never(step):
        raise AssertionError("trained")

    return ft.Callback("never", {"begin_fit": never})


def test_folders_that_cannot_be_saved_into(tmp_path, monkeypatch, untouched):
    fit, state = problem()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CannotSave, match="file: it is a file, not a folder"):
        fit(state, callbacks=[save_checkpoints(tmp_path / "file"), untouched])
    with pytest.raises(CannotSave, match=r"there is no folder .*nowhere; make it first"):
        fit(state, callbacks=[save_checkpoints(tmp_path / "nowhere" / "run"), untouched])
    real = os.open

    def read_only(path, flags, *mode, **options):
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *mode, **options)

    monkeypatch.setattr(writing.os, "open", read_only)
    with pytest.raises(CannotSave, match=r"cannot save into .*: read-only file system"):
        fit(state, callbacks=[save_checkpoints(tmp_path), untouched])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write(tmp_path, untouched):
    fit, state = problem()
    tmp_path.chmod(0o500)
    with pytest.raises(CannotSave, match="permission denied"):
        fit(state, callbacks=[save_checkpoints(tmp_path), untouched])


def test_two_callbacks_that_save_into_one_folder(tmp_path, untouched):
    fit, state = problem()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    both = [save_checkpoints(tmp_path / "run"), save_checkpoints(tmp_path / "link", name="other"), untouched]
    with pytest.raises(CannotSave, match="another callback or another process saves into it"):
        fit(state, callbacks=both)
    fit(state, callbacks=[save_checkpoints(tmp_path / "run")])  # it has been let go of


def test_a_worker_does_not_hold_the_folder_of_a_run_that_is_gone(tmp_path):
    with checkpoint.hold(tmp_path):
        ((_, file),) = holding._held
        child = os.fork()
        if child == 0:
            try:
                os.fstat(file)
            except OSError:
                os._exit(7)  # it is closed here, so that the lock goes with the parent
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        os.fstat(file)
    with checkpoint.hold(tmp_path):
        pass


def test_a_new_run_in_a_folder_that_has_one(tmp_path, untouched):
    fit, state = problem(epochs=1)
    fit(state, callbacks=[save_checkpoints(tmp_path)])
    before = steps(tmp_path)
    with pytest.raises(CannotSave, match=r"of another run, and this one begins; go on with checkpoint\.lat"):
        fit(state, callbacks=[save_checkpoints(tmp_path), untouched])
    assert steps(tmp_path) == before


def test_a_folder_with_a_checkpoint_that_cannot_be_read(tmp_path, untouched, monkeypatch):
    fit, state = problem(epochs=1)
    path = checkpoint.add(tmp_path, 1)
    raw = bytearray(path.read_bytes())
    raw[60] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CorruptFile, match="checkpoint-00000001"):
        fit(state, callbacks=[save_checkpoints(tmp_path), untouched])
    path.unlink()
    with monkeypatch.context() as newer:
        newer.setattr("functrain.checkpoint.format.header.FORMAT", 99)
        checkpoint.add(tmp_path, 1)
    with pytest.raises(NewerFormat, match="it has format 99"):
        fit(state, callbacks=[save_checkpoints(tmp_path), untouched])


def test_what_cannot_be_saved_is_found_before_training(tmp_path, untouched):
    loop = partial(ft.loop, lambda carry, batch: (carry, {}), key=ft.random.key(0), jit=False, epochs=1)
    rows = data.loader(data.ArrayDataset((torch.ones(4, 1), torch.ones(4))), data.sequential(2))
    with pytest.raises(NotSavable, match=r"state\.f: .* got a functools.partial"):
        loop({"f": partial(print)}, train=rows, callbacks=[save_checkpoints(tmp_path), untouched])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(every="day"), "every must be 'epoch' or a number of batches, got 'day'"),
        (dict(every=0), "every must be a whole number of at least 1, got 0"),
        (dict(keep_last=0), "keep_last must be a whole number of at least 1, got 0"),
        (dict(keep_best=-1), "keep_best must be a whole number of at least 0, got -1"),
        (dict(mode="least"), "mode must be one of 'min', 'max', got 'least'"),
        (dict(every=10, keep_best=1), "keep_best needs every='epoch'"),
        (dict(keep_last=None, keep_best=1), "keep_best needs .* a keep_last"),
    ],
)
def test_arguments(options, message):
    with pytest.raises(InvalidArgument, match=message):
        save_checkpoints("run", **options)


def test_a_monitor_that_no_epoch_measures(tmp_path):
    """The names of what is measured are certain after the first epoch alone."""
    fit, state = problem(jit=False, epochs=2)
    with pytest.raises(InvalidArgument, match=r"'valid/no'.* was measured in no epoch .* has .*valid/loss") as caught:
        fit(state, callbacks=[save_checkpoints(tmp_path, keep_best=1, monitor="valid/no")])
    assert len(caught.value.run.history) == 1


def test_a_monitor_that_is_not_measured(tmp_path):
    fit, state = problem()
    with pytest.raises(InvalidArgument, match="'test/loss' is not measured in this fit"):
        fit(state, callbacks=[save_checkpoints(tmp_path, keep_best=1, monitor="test/loss")])


# What goes wrong meanwhile


def test_a_disk_that_is_full_is_raised_at_a_boundary_with_the_run(tmp_path, monkeypatch):
    fit, state = problem()
    whole = fit(state, callbacks=[quiet()])
    write, calls = os.pwrite, []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(*arguments)

    monkeypatch.setattr(writing.os, "pwrite", full)
    with pytest.raises(CannotSave, match=r"no space left .* \(free some space\); nothing was overwritten") as caught:
        fit(state, callbacks=[save_checkpoints(tmp_path, every=2)])
    monkeypatch.undo()
    run = caught.value.run
    assert 0 < int(run.state.step) <= 28 and not list(tmp_path.glob(".*partial"))
    after = fit(checkpoint.latest(tmp_path), callbacks=[save_checkpoints(tmp_path, every=2)])
    assert not tree.differences(numbers(after), numbers(whole))
    assert not tree.differences(numbers(fit(run, callbacks=[quiet()])), numbers(whole))


def test_a_working_directory_that_changes_moves_no_checkpoint(tmp_path, monkeypatch):
    fit, state = problem(jit=False, epochs=2)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    moving = ft.Callback("moving", {"begin_epoch": lambda run: os.chdir(tmp_path / "elsewhere")}, keeps_state=False)
    fit(state, callbacks=[save_checkpoints("run"), moving])
    assert steps(tmp_path / "run") == [7, 14] and list((tmp_path / "elsewhere").iterdir()) == []


def test_a_boundary_that_raises_says_where(tmp_path):
    fit, state = problem(jit=False)

    def boundary(run):
        if run.step == 3:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError) as caught:
        fit(state, callbacks=[ft.Callback("mine", {}, boundary=boundary)], chunk=1)
    assert "in callback 'mine', event 'boundary'" in caught.value.__notes__
    assert int(caught.value.run.state.step) == 3
    with pytest.raises(InvalidArgument, match="boundary must be a function of a run, got 3"):
        ft.Callback("mine", {}, boundary=3)


def test_boundaries_are_where_a_run_can_be_gone_on_from():
    fit, state = problem(jit=False, epochs=2, chunk=3)
    seen = []
    fit(state, callbacks=[ft.Callback("mine", {}, boundary=lambda run: seen.append(run))])
    places = [(run.epoch, run.phase, run.step, run.cursor.event, len(run.history), run.point is None) for run in seen]
    assert places[:4] == [
        (0, "train", 0, "begin_epoch", 0, True),
        (0, "train", 0, "begin_batch", 0, True),
        (0, "train", 3, "begin_batch", 0, True),
        (0, "train", 6, "begin_batch", 0, True),
    ]
    assert (1, "train", 0, "begin_epoch", 1, True) in places
    assert places[-1] == (1, "train", 0, "after_fit", 2, False)
    assert all(run.cursor.answered == 0 and run.batch is None for run in seen)
    assert len(places) == len(set(places))
    assert seen[-1].finished and not seen[-1].point.finished


# Killed


@pytest.mark.parametrize("jit", [False, "aten"])
def test_killed_at_random_moments_and_started_again(tmp_path, jit):
    script = Path(__file__).with_name("killing_fits.py")
    command = [sys.executable, str(script), str(tmp_path), "10", "1", str(jit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    killed, furthest = map(int, done.stdout.split())
    assert killed == 10 and furthest > 0
