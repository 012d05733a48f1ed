"""The rules of files: how long they are, how many stand in a folder, and what tests may do."""

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "functrain"

MOST_LINES = 400
MOST_FILES = 13

LARGE_FOLDERS = {
    "functrain/engine/transforms/scanning": "a transformation of loops each, in the reading order of its README",
    "tests/train": "as its room of the package",
    "tests/engine": "a behaviour of compiled functions each, over all rooms of the engine",
    "tests/conformance": "a program of its own, with a README",
}
"""Folders of more than about a dozen files -> why they may be."""

TEST_FOLDERS = {
    "conformance": "operators of PyTorch's own database",
    "interop": "nn.interop",
    "typing": "what pyright reads",
    "zoo": "modules of others",
}
"""Folders of tests that are named for no module -> what they test."""

VAGUE_NAMES = {"utils", "util", "helpers", "common", "misc", "tools"}


def python_files(folder: str) -> list[Path]:
    return sorted(file for file in (ROOT / folder).rglob("*.py") if "__pycache__" not in file.parts)


def test_no_file_outgrows_its_limit():
    lengths = {file: len(file.read_text().splitlines()) for file in python_files("functrain") + python_files("tests")}
    assert {str(file): n for file, n in lengths.items() if n > MOST_LINES} == {}


def test_no_folder_outgrows_its_limit():
    counts = defaultdict(int)
    for file in [*python_files("functrain"), *python_files("tests"), *python_files("examples")]:
        counts[file.parent.relative_to(ROOT).as_posix()] += file.name != "__init__.py"
    assert {folder for folder, n in counts.items() if n > MOST_FILES} == set(LARGE_FOLDERS), "too many, or no longer"


def test_the_folders_of_tests_mirror_the_package():
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    rooms = {path.stem for path in PACKAGE.iterdir()}
    assert folders - rooms == set(TEST_FOLDERS) - rooms
    single = {file.stem.removeprefix("test_") for file in (ROOT / "tests").glob("test_*.py")}
    assert [name for name in single & rooms if (PACKAGE / name).is_dir()] == [], "these belong into folders"


def test_tests_import_no_private_names():
    private = [
        f"{file.relative_to(ROOT)}:{node.lineno} {alias.name}"
        for file in python_files("tests")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("functrain")
        for alias in node.names
        if re.match("_[^_]", alias.name)
    ]
    assert not private, private


def test_subprocesses_of_tests_have_time_limits():
    without = []
    for file in python_files("tests"):
        text = file.read_text()
        for node in ast.walk(ast.parse(text)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if getattr(node.func.value, "id", "") != "subprocess":
                continue
            limited = any(keyword.arg == "timeout" for keyword in node.keywords)
            if not limited and not (node.func.attr == "Popen" and re.search(r"timeout=|\.kill\(|limits import", text)):
                without.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert not without, without


def test_no_file_has_a_name_that_says_nothing():
    folders = ("functrain", "tests", "examples", "benchmarks")
    names = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in ("", ".py")]
    assert [path for path in names if path.stem in VAGUE_NAMES] == []


def test_no_two_test_files_go_by_one_module_name():
    """Folders of tests that are no packages share one space of names, so a second file of a name is not collected."""
    places = defaultdict(list)
    for file in sorted((ROOT / "tests").rglob("*.py")):
        if not (file.parent / "__init__.py").exists() and file.name != "conftest.py":
            places[file.name].append(str(file.relative_to(ROOT)))
    assert not (twice := {name: files for name, files in places.items() if len(files) > 1}), twice
