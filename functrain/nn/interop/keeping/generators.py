"""Generators of Python's and NumPy's own that a module holds, or that its code reads from a global variable."""

import pickle
import random as python_random
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from functrain.engine.statics.library import is_library_file, names_in
from functrain.engine.statics.static_values import ABSENT
from functrain.engine.statics.walking import content

Watched = tuple[str, Callable[[], Any], Callable[[Any], Any]]
"""What a message calls a generator, () -> its state, and what puts a state back."""


def watch(thing: Any, name: str) -> Watched | None:
    """Return how a generator is watched, None for anything else.

    >>> watch(python_random.Random(0), "rng")[0], watch(3, "n")
    ("rng, a generator of Python's module random", None)
    """
    if isinstance(thing, python_random.Random):
        return f"{name}, a generator of Python's module random", thing.getstate, thing.setstate
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(thing, (numpy.random.Generator, numpy.random.RandomState)):
        return None
    legacy = isinstance(thing, numpy.random.RandomState)
    bits = None if legacy else thing.bit_generator

    def get() -> bytes:
        return pickle.dumps(thing.get_state(legacy=False) if legacy else bits.state)  # pyright: ignore

    def put(state: bytes) -> None:
        if legacy:
            thing.set_state(pickle.loads(state))
        else:
            bits.state = pickle.loads(state)  # pyright: ignore

    return f"{name}, a generator of NumPy's", get, put


def read_by(code: Iterable[Any]) -> Iterator[Watched]:
    """Yield the generators that functions, and the methods of classes, read from global variables and closures.

    So do the functions that they call, where these are no library's.
    """
    waiting, met = list(code), set()
    while waiting:
        one = waiting.pop()
        if id(one) in met:
            continue
        met.add(id(one))
        for f in _functions(one):
            for name, thing in _variables(f):
                watched = None if id(thing) in met else watch(thing, name)
                if watched is not None:
                    met.add(id(thing))
                    yield watched
                elif isinstance(thing, types.FunctionType):
                    waiting.append(thing)


def _functions(one: Any) -> Iterator[types.FunctionType]:
    for f in [v for base in one.__mro__ for v in vars(base).values()] if isinstance(one, type) else [one]:
        f = getattr(f, "fget", None) or getattr(f, "__func__", f)
        if isinstance(f, types.FunctionType) and not is_library_file(f.__code__.co_filename):
            yield f


def _variables(f: types.FunctionType) -> Iterator[tuple[str, Any]]:
    yield from ((name, f.__globals__[name]) for name in names_in(f.__code__).variables if name in f.__globals__)
    held = zip(f.__code__.co_freevars, map(content, f.__closure__ or ()), strict=True)
    yield from ((name, thing) for name, thing in held if thing is not ABSENT)
