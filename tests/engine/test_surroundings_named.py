"""What code names in libraries' modules and in `globals()` belongs to the signature; what does not is documented."""

import math
import re
import sys
import types

import pytest
import torch

from functrain.engine import jit

SCALE, prefix = 2.0, "SC"


@pytest.fixture
def library(monkeypatch):
    """An installed package with a flag, a table and a module of its own."""
    package, inner = types.ModuleType("a_library"), types.ModuleType("a_library.flags")
    for module in (package, inner):
        module.__file__ = re.__file__  # in the standard library's folder, as far as anybody can tell
        monkeypatch.setitem(sys.modules, module.__name__, module)
    package.scale, package.table, package.flags, inner.fast = 2.0, {"k": 1.0}, inner, False
    return package


def changes(f, change):
    """Return the results of a jitted function before and after a change, and how often it was traced."""
    compiled, x = jit(f), torch.ones(2)
    before = compiled(x)[0].item()
    compiled(x)
    change()
    return before, compiled(x)[0].item(), len(compiled.traces)


def test_a_number_in_a_librarys_module_is_seen(library):
    assert changes(lambda x: x * library.scale, lambda: setattr(library, "scale", 3.0)) == (2.0, 3.0, 2)


def test_a_flag_in_a_module_of_a_library_is_seen(library):
    def f(x):
        return x * (5.0 if library.flags.fast else 4.0)

    assert changes(f, lambda: setattr(library.flags, "fast", True)) == (4.0, 5.0, 2)


def test_a_number_that_is_deleted_or_added_is_seen(library):
    def f(x):
        return x * getattr(library, "scale", 7.0)

    assert changes(f, lambda: delattr(library, "scale")) == (2.0, 7.0, 2)


def test_a_constant_of_the_standard_library_is_seen(monkeypatch):
    assert changes(lambda x: x * math.tau, lambda: monkeypatch.setattr(math, "tau", 1.0))[1:] == (1.0, 2)


def test_what_the_code_does_not_name_in_a_library_makes_no_trace(library):
    assert changes(lambda x: x * library.scale, lambda: setattr(library, "other", 3.0)) == (2.0, 2.0, 1)


def test_a_global_variable_that_is_named_to_globals_is_seen(monkeypatch):
    def f(x):
        return x * globals()["SCALE"]

    assert changes(f, lambda: monkeypatch.setitem(globals(), "SCALE", 6.0)) == (2.0, 6.0, 2)


def test_names_that_are_computed_are_not_seen_as_the_documentation_says(monkeypatch):
    def f(x):
        return x * globals()[prefix + "ALE"]

    assert changes(f, lambda: monkeypatch.setitem(globals(), "SCALE", 6.0)) == (2.0, 2.0, 1)


def test_slots_are_seen():
    class Slots:
        __slots__ = ("scale",)

    slots = Slots()
    slots.scale = 2.0
    assert changes(lambda x: x * slots.scale, lambda: setattr(slots, "scale", 3.0)) == (2.0, 3.0, 2)
