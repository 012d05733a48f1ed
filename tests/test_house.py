"""The rules of the house: who imports whom, what is public where, and that everything public is explained."""

import ast
import doctest
import importlib
import re
import sys
import tomllib
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "functrain"

LEVELS = {
    "errors": 0,
    "arguments": 0.1,
    "records": 0.02,
    "foreign": 0.05,
    "dispatch_contexts": 0.01,
    "dispatch_state": 0,
    "norms": 0,
    "operators": 0,
    "tree": 1,
    "random": 1,
    "weighted": 1,
    "engine.statics": 2.1,
    "engine.tracing": 2.1,
    "engine.graph": 2.2,
    "engine.backends": 2.3,
    "engine.calling": 2.4,
    "engine.transforms": 2.5,
    "engine": 2.6,
    "schedule": 2,
    "initializers": 2,
    "losses": 2,
    "metrics": 2,
    "nn": 3,
    "optim": 3,
    "data": 3,
    "train": 4,
    "checkpoint": 3.5,
    "callbacks": 6,
    "time_travel": 6,
    "plot": 7,
    "sweep": 7,
    "parallel": 7,
    "testing": 8,
    "": 9,  # functrain/__init__.py
}
"""Module or package -> level. A module imports from lower levels, and from its own package, alone."""

RUNTIME = {"attrs", "rich", "toolz", "torch"}
"""What may be imported when a module is; anything else only inside the function that needs it."""

WITHOUT_EXAMPLE: dict[str, str] = {}
"""Public functions that cannot run in a doctest, as full dotted name -> the reason."""


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(file): file for file in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(file.read_text(), str(file)) for name, file in FILES.items()}
PACKAGES = [name for name, file in FILES.items() if file.name == "__init__.py" and name != "functrain"]


def report(lines: list[str]) -> str:
    return "\n" + "\n".join(lines)


def is_public(name: str) -> bool:
    return not name.startswith("_")


# Imports


def targets(statement: ast.AST, importer: str) -> list[str]:
    """The modules that an import statement names; of `from package import module`, the module."""
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    if not isinstance(statement, ast.ImportFrom):
        return []
    assert statement.level == 0, f"{importer}:{statement.lineno}: relative import; write the full name"
    inside = [f"{statement.module}.{alias.name}" for alias in statement.names]
    return [name if name in FILES else str(statement.module) for name in inside]


def internal_imports(module: str) -> list[tuple[int, str]]:
    found = [(node.lineno, name) for node in ast.walk(TREES[module]) for name in targets(node, module)]
    return sorted({(line, name) for line, name in found if name.split(".")[0] == "functrain"})


def row(module: str) -> str | None:
    """The row of the table of levels that a module belongs to, the longest that fits, or None."""
    path = module.removeprefix("functrain").removeprefix(".")
    fits = [name for name in LEVELS if path == name or (name and path.startswith(f"{name}."))]
    return max(fits, key=len, default=None)


def level(module: str) -> int:
    return LEVELS[row(module) or ""]


def may_import(importer: str, imported: str) -> bool:
    return row(importer) == row(imported) or level(imported) < level(importer)


def test_every_module_has_a_level():
    assert [module for module in FILES if row(module) is None] == []


def test_each_module_imports_from_lower_levels_or_its_own_package_alone():
    wrong = [
        f"{module}:{line} (level {level(module)}) imports {name} (level {level(name)})"
        for module in FILES
        for line, name in internal_imports(module)
        if not may_import(module, name)
    ]
    assert not wrong, report(wrong)


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("functrain.tree", "functrain.errors", True),
        ("functrain.tree", "functrain.random", False),
        ("functrain.nn.model", "functrain.nn.layers", True),
        ("functrain.nn.model", "functrain.optim.transform", False),
        ("functrain.random", "functrain.dispatch_state", True),
        ("functrain.engine.graph.aliasing", "functrain.engine.calling.jitting", False),
        ("functrain.random", "functrain.engine.transforms.gradients", False),
        ("functrain.train.stepping.step", "functrain", False),
        ("functrain", "functrain.plot", True),
    ],
)
def test_the_rule_of_levels(importer, imported, allowed):
    assert may_import(importer, imported) is allowed


def test_imports_have_no_cycle():
    waiting = {module: {name for _, name in internal_imports(module) if name in FILES} for module in FILES}
    while ready := [module for module, needs in waiting.items() if not needs & waiting.keys()]:
        for module in ready:
            del waiting[module]
    assert not waiting, f"these import each other in a circle, or stand on one: {sorted(waiting)}"


def test_importing_functrain_needs_no_extra():
    allowed = RUNTIME | sys.stdlib_module_names | {"functrain"}
    wrong = [
        f"{module}:{statement.lineno} imports {name}"
        for module, tree in TREES.items()
        for statement in tree.body
        for name in targets(statement, module)
        if name.split(".")[0] not in allowed
    ]
    assert not wrong, report(wrong)


def test_the_runtime_dependencies_are_those_declared():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.split(r"[<>=~!\[ ]", line)[0] for line in declared} == RUNTIME


def test_only_tree_knows_the_pytree_library():
    knows = {row(module) for module, file in FILES.items() if re.search(r"\b(_pytree|optree)\b", file.read_text())}
    # The generated code that takes trees apart for compiled calls asks the library how it would.
    assert knows == {"engine.calling", "tree"}


# Versions


def test_the_changelog_begins_with_the_installed_version():
    headings = re.findall(r"^## \[?([^\]\s]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(name for name in headings if name != "Unreleased") == version("functrain")


# What is public, and where


def exported(module: str) -> list[str]:
    """The public names of a module: those in `__all__`, or without one whatever it defines without underscore."""
    found = importlib.import_module(module)
    if hasattr(found, "__all__"):
        return list(found.__all__)
    return [name for name in defined(TREES[module]) if is_public(name)]


def defined(tree: ast.Module) -> list[str]:
    names = []
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            names.append(statement.name)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            left = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names += [node.id for target in left for node in ast.walk(target) if isinstance(node, ast.Name)]
    return names


PLACES = [name for name in FILES if name.count(".") == 1]
"""Where public things live: the modules and packages right below functrain; what is inside a package, it exports."""


def test_every_package_says_what_it_exports():
    missing = [name for name in [*PACKAGES, "functrain"] if "__all__" not in defined(TREES[name])]
    assert not missing, report(missing)


@pytest.mark.parametrize("module", FILES)
def test_every_exported_name_exists_once(module):
    names, found = exported(module), importlib.import_module(module)
    assert len(set(names)) == len(names)
    assert [name for name in names if not hasattr(found, name)] == []


def test_nothing_is_public_in_two_places():
    places = defaultdict(list)
    for module in PLACES:
        for name in exported(module):
            thing = getattr(importlib.import_module(module), name)
            if str(getattr(thing, "__module__", "")).startswith("functrain"):
                places[id(thing)].append(f"{module}.{name}")
    assert [names for names in places.values() if len(names) > 1] == []


def bound_to_things(package: str) -> list[str]:
    """The names that a package's `__init__` binds to something else than its own modules."""
    statements = TREES[package].body
    froms = [node for node in statements if isinstance(node, ast.ImportFrom) and node.module != package]
    return [*defined(TREES[package]), *(alias.asname or alias.name for node in froms for alias in node.names)]


def test_no_name_is_both_a_module_and_something_else():
    # `package.name` would be the one or the other, depending on which was imported last.
    names = [f"{package}.{name}" for package in [*PACKAGES, "functrain"] for name in bound_to_things(package)]
    twice = [name for name in names if name in FILES]
    assert not twice, report(twice)


# Docstrings


def documented(module: str) -> list[tuple[str, ast.AST]]:
    """Each public definition of a module with its full dotted name: functions, classes, and methods of classes."""
    found: list[tuple[str, ast.AST]] = [(module, TREES[module])]
    for statement in TREES[module].body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef) and is_public(statement.name):
            found.append((f"{module}.{statement.name}", statement))
            found += [
                (f"{module}.{statement.name}.{inner.name}", inner)
                for inner in statement.body
                if isinstance(statement, ast.ClassDef) and isinstance(inner, ast.FunctionDef) and is_public(inner.name)
            ]
    return found


def test_every_public_name_has_a_docstring():
    missing = [name for module in FILES for name, node in documented(module) if not ast.get_docstring(node)]
    assert not missing, report(missing)


def test_every_public_function_has_an_example():
    without = [
        name
        for module in FILES
        for name, node in documented(module)
        if isinstance(node, ast.FunctionDef)
        and node in TREES[module].body  # a method is shown by its class
        and is_exported(name)
        and not has_example(node)
    ]
    assert sorted(set(without) ^ set(WITHOUT_EXAMPLE)) == [], "no example, or listed as without one and has it"


def has_example(node: ast.AST) -> bool:
    return ">>>" in (ast.get_docstring(node) or "")


def is_exported(name: str) -> bool:
    """Whether a function is public where users look for it: in its place right below functrain."""
    place, *_, function = name.removeprefix("functrain.").split(".")
    return function in exported(f"functrain.{place}")


@pytest.mark.parametrize("module", FILES)
def test_every_example_is_found_by_doctest(module):
    # A decorator can hide a function from doctest, whose examples then never run and are never wrong.
    found = doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module), module)
    runs = {test.name for test in found if test.examples}
    assert [name for name, node in documented(module) if has_example(node) and name not in runs] == []


# Errors, and the README


def test_every_error_class_is_raised_in_some_test():
    texts = [file.read_text() for file in (ROOT / "tests").rglob("test_*.py") if file != Path(__file__).resolve()]
    words = set(re.findall(r"\w+", "\n".join(texts)))
    classes = [node.name for node in TREES["functrain.errors"].body if isinstance(node, ast.ClassDef)]
    assert [name for name in classes if name not in words and name != "FunctrainError"] == []


def test_the_script_in_the_readme_runs(capsys):
    script = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert script is not None
    exec(compile(script[1], "README.md", "exec"), {"__name__": "readme"})
    assert "valid/accuracy" in capsys.readouterr().out
