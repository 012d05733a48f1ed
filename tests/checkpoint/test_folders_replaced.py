"""What others do to the folder of a run that saves: it saves into no other, and loses nothing; the best among NaN."""

import math
import os
import shutil
import threading
from types import SimpleNamespace

import attrs
import pytest
from saving_problem import numbers, problem

import functrain as ft
from functrain import checkpoint, tree
from functrain.callbacks import save_checkpoints
from functrain.checkpoint import folders
from functrain.errors import CannotSave


def move(folder):
    os.rename(folder, folder.with_name("elsewhere"))


def by_another(make):
    def replace(folder):
        move(folder)
        make(folder)

    return replace


def another_run(folder):
    fit, state = problem(jit=False)
    fit(state, callbacks=[save_checkpoints(folder), ft.Callback("do", {})])


HAPPENINGS = {
    "deleted": shutil.rmtree,
    "moved": move,
    "by a file": by_another(lambda folder: folder.write_text("mine")),
    "by an empty folder": by_another(lambda folder: folder.mkdir()),
    "by a link to the folder of another run": by_another(
        lambda folder: (another_run(folder.with_name("other")), folder.symlink_to(folder.with_name("other")))
    ),
    "by another run": by_another(another_run),
}


@pytest.mark.parametrize("quickly", [True, False])
@pytest.mark.parametrize("happening", HAPPENINGS)
def test_a_folder_that_is_there_no_more_is_an_error_that_carries_the_run(tmp_path, happening, quickly):
    """Whether it happens while a checkpoint is written, or between two."""
    fit, state = problem(jit=False)
    folder = tmp_path / "run"
    whole = fit(state, callbacks=[ft.Callback("save_checkpoints", {}), ft.Callback("do", {})])
    states = []

    def begin_epoch(run):
        if run.epoch == 2:
            if not quickly:
                _wait_for(folder, 2)
            _try_until_done(lambda: HAPPENINGS[happening](folder))
            states.append(_names(tmp_path))

    doing = ft.Callback("do", {"begin_epoch": begin_epoch}, order=-1, keeps_state=False)
    with pytest.raises(CannotSave, match=r"run: the folder .* was deleted, moved or replaced .* error\.run") as caught:
        fit(state, callbacks=[save_checkpoints(folder, keep_last=1), doing])
    foreign = {name for name in _names(tmp_path) - states[0] if not name.startswith("elsewhere")}
    assert not foreign, "nothing was saved into what stands in its place"
    calm = [ft.Callback("do", {}), save_checkpoints(tmp_path / "new")]
    on = fit(caught.value.run, callbacks=calm)
    assert not tree.differences(numbers(on, "do"), numbers(whole, "do"))


def _wait_for(folder, number):
    done = threading.Event()
    while not (folder / f"checkpoint-{number:08d}.safetensors").exists():
        done.wait(0.01)
    done.wait(0.2)


def _try_until_done(act):
    for attempt in range(100):
        try:
            return act()
        except OSError:  # a file was made while others were deleted
            if attempt == 99:
                raise


def _names(folder):
    found = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return {name for name in found if not name.endswith(".partial")}


def with_losses(values):
    """Return a callback that makes the validation's losses."""

    def after_epoch(run):
        return attrs.evolve(run, logs={**run.logs, "valid/loss": values[run.epoch]})

    return ft.Callback("losses", {"after_epoch": after_epoch}, order=-2)


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("values", "mode", "expected"),
    [
        ((NAN, NAN, NAN, NAN), "min", [4]),  # the newest alone
        ((0.5, NAN, NAN, NAN), "min", [1, 4]),
        ((NAN, 0.5, INF, NAN), "min", [2, 4]),
        ((NAN, 0.5, INF, NAN), "max", [3, 4]),
        ((0.5, 0.5, 0.5, 0.9), "min", [3, 4]),  # of equally good ones the newer
    ],
)
def test_the_best_among_values_that_are_not_finite_or_equal(tmp_path, values, mode, expected):
    fit, state = problem(jit=False)
    fit(state, callbacks=[with_losses(values), save_checkpoints(tmp_path, keep_last=1, keep_best=1, mode=mode)])
    assert [entry.info["epoch"] for entry in checkpoint.entries(tmp_path)] == expected


def test_checkpoints_of_nan_alone_are_none_of_the_best(tmp_path):
    for number in range(3):
        checkpoint.add(tmp_path, number, info={"valid/loss": NAN})
    assert [path.name for path in checkpoint.keep(tmp_path, 1, best=2)] == [
        "checkpoint-00000001.safetensors",
        "checkpoint-00000002.safetensors",
    ]


def test_runs_in_two_threads_save_into_two_folders(tmp_path):
    fit, state = problem()
    whole, runs = fit(state), {}

    def train(name):
        runs[name] = fit(state, callbacks=[save_checkpoints(tmp_path / name, every=2, keep_last=2)])

    threads = [threading.Thread(target=train, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, run in runs.items():
        assert not tree.differences(numbers(run), numbers(whole))
        assert [entry.info["step"] for entry in checkpoint.entries(tmp_path / name)][-1] == 28
    assert len(runs) == 2


@pytest.mark.parametrize("look", [checkpoint.latest, lambda folder: checkpoint.entries(folder)[-1]])
def test_the_only_checkpoint_is_deleted_for_a_newer_one_while_the_folder_is_looked_into(tmp_path, monkeypatch, look):
    """At whatever moment after the folder was listed, the newer one is seen: there is always one."""
    checkpoint.add(tmp_path, 1, info={"step": 1})

    def listed(folder):
        names = os.listdir(folder)
        monkeypatch.undo()
        checkpoint.add(tmp_path, 2, info={"step": 2})
        checkpoint.keep(tmp_path, last=1)
        return names

    monkeypatch.setattr(folders, "os", SimpleNamespace(**{**vars(os), "listdir": listed}))
    assert look(tmp_path).info["step"] == 2


def test_a_checkpoint_that_another_process_reads_while_it_is_saved_is_whole(tmp_path):
    """A reader sees the newest complete one each time, though older ones are deleted under its eyes."""
    fit, state = problem(jit=False)
    ended, seen, failed = threading.Event(), [], []

    def read():
        while not ended.is_set():
            try:
                newest = checkpoint.latest(tmp_path)
            except Exception as error:
                failed.append(error)
                return
            seen.append(newest.info["step"] if newest else 0)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        fit(state, callbacks=[save_checkpoints(tmp_path, every=1, keep_last=1)], chunk=1)
    finally:
        ended.set()
        reader.join()
    assert not failed and seen == sorted(seen) and len(set(seen)) > 2
