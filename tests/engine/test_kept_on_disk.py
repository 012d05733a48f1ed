"""Compiled graphs on disk are executed when they are loaded: whose folder it must be, and what entries must be."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from functrain.engine.backends.inductor import artifact, ownership
from functrain.engine.backends.inductor import compiling as inductor
from functrain.engine.backends.inductor.ownership import objection, own_folder
from functrain.errors import CacheRefused

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="the rules are POSIX's")
WRAPPER = "call = lambda inputs: 'loaded'"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The cache, with an entry named "entry"."""
    cache = tmp_path / "above" / "cache"
    monkeypatch.setenv("FUNCTRAIN_CACHE", str(cache))
    artifact._store(cache / "inductor" / "entry", WRAPPER, {})
    return cache


def load():
    call = artifact.load("entry")
    return call and call([])


def test_what_is_ones_own_is_loaded_and_only_ones_own(folder):
    assert load() == "loaded"
    for path in (folder.parent, folder, folder / "inductor", folder / "inductor" / "entry"):
        assert path.stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in (folder / "inductor" / "entry").iterdir()} == {0o600}


@pytest.mark.parametrize("where", ["above", "above/cache", "above/cache/inductor"])
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_may_write_to_is_refused_in_words(folder, tmp_path, where, mode, monkeypatch):
    monkeypatch.setattr(ownership, "_is_private", lambda group: False)
    (tmp_path / where).chmod(mode)
    with pytest.warns(CacheRefused, match=rf"{where} may be written to by others; chmod 700 a folder of your own, and"):
        assert load() is None
    assert (folder / "inductor" / "entry").exists()
    record = type("Record", (), {"constants": {}, "source_code": WRAPPER, "current_callable": None})
    said = inductor._save("new", record)
    assert said == f" (not kept on disk: {tmp_path / where} may be written to by others)"
    assert not (folder / "inductor" / "new").exists()


def test_a_sticky_folder_above_is_as_good_as_tmp(folder):
    folder.parent.chmod(0o1777)
    assert load() == "loaded"
    (folder / "inductor").chmod(0o1777)  # itself sticky: anybody may put an entry there
    with pytest.warns(CacheRefused):
        assert load() is None


def test_a_folder_of_another_user_is_refused(folder, monkeypatch):
    mine = os.getuid()
    monkeypatch.setattr(ownership.os, "getuid", lambda: mine + 12345)
    with pytest.warns(CacheRefused, match=rf"belongs to .*, and not to user {mine + 12345}"):
        assert load() is None


def test_the_group_of_the_user_alone_is_nobody_else(folder, monkeypatch):
    folder.chmod(0o770)
    monkeypatch.setattr(ownership, "_is_private", lambda group: group == folder.stat().st_gid)
    assert load() == "loaded"
    folder.chmod(0o777)
    with pytest.warns(CacheRefused):
        assert load() is None


def test_links_are_followed_and_what_holds_them_is_looked_at(folder, tmp_path, monkeypatch):
    link = tmp_path / "link"
    link.symlink_to(folder)
    monkeypatch.setenv("FUNCTRAIN_CACHE", str(link))
    assert load() == "loaded"
    folder.chmod(0o777)
    with pytest.warns(CacheRefused, match="cache may be written to by others"):
        assert load() is None
    folder.chmod(0o700)
    held = tmp_path / "held"
    held.mkdir()
    (held / "link").symlink_to(folder)
    held.chmod(0o777)  # others may put another link there
    monkeypatch.setenv("FUNCTRAIN_CACHE", str(held / "link"))
    with pytest.warns(CacheRefused, match="held may be written to by others"):
        assert load() is None


def test_what_does_not_exist_is_judged_by_what_is_above(tmp_path):
    assert objection(tmp_path / "no" / "such") is None
    tmp_path.chmod(0o777)
    assert objection(tmp_path / "no" / "such") == f"{tmp_path} may be written to by others"


def test_folders_are_made_for_the_user_alone(tmp_path):
    before = os.umask(0)
    try:
        own_folder(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "a", tmp_path / "a" / "b")} == {0o700}


def test_an_entry_that_others_may_write_to_is_removed(folder):
    (folder / "inductor" / "entry" / "wrapper.py").chmod(0o666)
    assert load() is None
    assert not (folder / "inductor" / "entry").exists()


def listed(folder, **change):
    file = folder / "inductor" / "entry" / "digests.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))


def test_an_entry_of_another_pytorch_is_not_run(folder, monkeypatch):
    """Its name says so already; an entry that was copied under another name says so too."""
    monkeypatch.setattr(artifact, "_machine", lambda: ("another", "version"))
    assert load() is None
    assert not (folder / "inductor" / "entry").exists()


@pytest.mark.parametrize("change", [{"machine": "other"}, {"files": {"../wrapper.py": ""}}, {"files": ["wrapper.py"]}])
def test_a_foreign_list_of_files_is_not_followed(folder, change):
    listed(folder, **change)
    assert load() is None


def test_an_entry_of_the_format_before_is_not_run(folder):
    file = folder / "inductor" / "entry" / "digests.json"
    file.write_text(json.dumps(json.loads(file.read_text())["files"]))
    assert load() is None


@pytest.mark.parametrize("cut", [0, 1, 10])
def test_a_truncated_wrapper_is_not_run(folder, cut):
    file = folder / "inductor" / "entry" / "wrapper.py"
    file.write_bytes(file.read_bytes()[:cut])
    assert load() is None


PROGRAM = """
    import sys, torch, functrain as ft
    step = ft.jit(lambda x, w: torch.tanh(x @ w).sum(0) * 3 + w[0].exp(), backend="inductor")
    x, w = torch.ones(2, 3), torch.full((3, 3), 0.5)
    expected = torch.tanh(x @ w).sum(0) * 3 + w[0].exp()
    torch.testing.assert_close(step(x, w), expected)
    print("imported" if "torch._inductor.compile_fx" in sys.modules else "loaded", torch.__version__)
"""


def start(cache: Path, python: str = sys.executable) -> subprocess.Popen:
    env = {**os.environ, "FUNCTRAIN_CACHE": str(cache)}
    command = [python, "-W", "ignore", "-c", textwrap.dedent(PROGRAM)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answers(*processes: subprocess.Popen) -> list[str]:
    done = [process.communicate(timeout=300) for process in processes]
    assert [p.returncode for p in processes] == [0] * len(processes), done
    return [out.split()[0] for out, _ in done]


def test_two_processes_at_once_compile_both_and_leave_one_entry(tmp_path):
    assert answers(start(tmp_path), start(tmp_path)) == ["imported", "imported"]
    assert len(list((tmp_path / "inductor").iterdir())) == 1
    assert answers(start(tmp_path), start(tmp_path)) == ["loaded", "loaded"]


OTHER = os.environ.get("FUNCTRAIN_OTHER_PYTHON")
"""A Python with another version of PyTorch, and functrain's other dependencies."""


@pytest.mark.skipif(not OTHER, reason="FUNCTRAIN_OTHER_PYTHON names no Python with another PyTorch")
def test_two_versions_of_pytorch_on_one_folder(tmp_path):
    assert OTHER is not None
    pythons = [sys.executable, OTHER]
    for expected in ("imported", "loaded"):
        for python in pythons:
            assert answers(start(tmp_path, python)) == [expected]
    assert len(list((tmp_path / "inductor").iterdir())) == 2


def test_a_digest_is_that_of_the_content():
    assert artifact._digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert torch.__version__ in artifact._machine()
