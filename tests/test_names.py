"""Names: completion shows what is public, and nothing else."""

import types

import pytest

import functrain as ft
from functrain import plot, testing

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
