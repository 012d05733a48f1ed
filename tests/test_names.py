"""Names: completion shows what is public, and nothing else."""

import ast
import io
import tokenize
import types
from pathlib import Path

import pytest

import functrain as ft
from functrain import plot, testing

PACKAGE = Path(ft.__file__).parent

MODULES = [ft, plot, testing, ft.nn.takes]
MODULES += [getattr(ft, name) for name in ft.__all__ if isinstance(getattr(ft, name), types.ModuleType)]


def is_ours(thing: object) -> bool:
    module = getattr(thing, "__module__", None) or "functrain"  # a value has none
    return module.partition(".")[0] in ("functrain", "typing", "types", "torch", "collections", "builtins")


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_completion_shows_what_is_public_and_nothing_else(module):
    shown = {name for name in dir(module) if not name.startswith("_")}
    assert not hasattr(module, "__all__") or shown == set(module.__all__)
    for name in shown:
        thing = getattr(module, name)
        assert thing in MODULES if isinstance(thing, types.ModuleType) else is_ours(thing), name


SAYS_NOTHING = {"told", "known", "given", "found"}


def test_no_name_says_nothing():
    empty = {
        (str(path.relative_to(PACKAGE)), token.string)
        for path in PACKAGE.rglob("*.py")
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
        if token.type == tokenize.NAME and token.string.strip("_") in SAYS_NOTHING
    }
    assert not empty


ONE_THING = ("Progress", "Step", "Plan", "Loop", "Trace")
"""What is called so is one thing in the whole package."""


def test_big_words_name_one_thing():
    made: dict[str, list[str]] = {name: [] for name in ONE_THING}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [node.name] if isinstance(node, ast.ClassDef) else []
            names += [t.id for t in getattr(node, "targets", ()) if isinstance(t, ast.Name)]
            for name in names:
                made.get(name.strip("_"), []).append(str(path.relative_to(PACKAGE)))
    assert {name: len(paths) for name, paths in made.items()} == dict.fromkeys(ONE_THING, 1), made


PARTICIPLES = {
    "edit_injected": "a verb, and what it edits",
    "masked": "optax's name",
    "named": "an adjective of the layer or transform that it returns",
    "named_chain": "optax's name",
    "read_injected": "a verb, and what it reads",
    "shuffled": "an adjective of the sampler that it returns, beside `sequential`",
    "truncated_normal": "the name of the distribution",
    "weighted_mean": "a noun",
    "scale_by_factored_rms": "optax's name",
    "add_decayed_weights": "optax's name",
}


IRREGULAR = {"made", "drawn", "kept", "written", "chosen", "taken", "shown", "held", "rebuilt", "broken"}


def is_property(node):
    return any(isinstance(d, ast.Name) and d.id == "property" for d in node.decorator_list)


def test_functions_of_a_word_are_no_participles():
    """Of functions and methods; what a function defines inside and returns may be called after what it is."""
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        for parent in ast.walk(ast.parse(path.read_text())):
            for node in ast.iter_child_nodes(parent) if isinstance(parent, ast.Module | ast.ClassDef) else ():
                if isinstance(node, ast.FunctionDef) and not is_property(node):
                    word = node.name.strip("_")
                    participle = word in IRREGULAR or (word.endswith("ed") and word not in ("feed", "embed", "seed"))
                    if participle and "_" not in word and word not in PARTICIPLES:
                        wrong.append(f"{path.relative_to(PACKAGE)}: {word}")
    assert not wrong


def test_public_functions_are_verbs_or_nouns():
    names = {
        name
        for module in MODULES
        for name in getattr(module, "__all__", dir(module))
        if name.islower() and callable(getattr(module, name))
    }
    assert not {n for n in names if any(part.endswith("ed") for part in n.split("_"))} - PARTICIPLES.keys()
