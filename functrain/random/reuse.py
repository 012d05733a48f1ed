"""The opt-in check that no key is used twice."""

import sys
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from functrain.dispatch_state import is_plain
from functrain.errors import KeyReused
from functrain.random.philox import MASK


class _Ledger:
    """Which keys were used, and where."""

    def __init__(self) -> None:
        self.uses: dict[Hashable, str] = {}
        self.origins: dict[int, Hashable] = {}
        self.kept: list[object] = []  # an id is unique only as long as its object lives

    def names(self, key: Tensor) -> list[Hashable]:
        """What tells keys apart: their values; where a trace has none, how they came about, or else the tensor."""
        if is_plain() and type(key) is Tensor:
            return [tuple(words) for words in (key & MASK).reshape(-1, 2).tolist()]
        self.kept.append(key)
        return [self.origins.get(id(key), id(key))]

    def derive(self, child: Tensor, parent: Tensor, how: tuple) -> None:
        """Note that a key without a value is derived from another."""
        self.kept += [child, *how]
        steps = tuple(id(step) if isinstance(step, Tensor) else step for step in how)
        self.origins[id(child)] = (tuple(self.names(parent)), steps)

    def use(self, key: Tensor, by: str) -> None:
        """Note a use; raise `KeyReused` at the second."""
        here = f"{by} at {_caller()}"
        for name in self.names(key):
            if name in self.uses:
                which = f"the key {list(name)}" if isinstance(name, tuple) and type(name[0]) is int else "a traced key"
                raise KeyReused(
                    f"{which} is used twice, by {self.uses[name]} and by {here}: both get the same random bits; "
                    "derive a key for each use with split or fold_in"
                )
            self.uses[name] = here


_LEDGER: ContextVar[_Ledger | None] = ContextVar("ledger", default=None)


@contextmanager
def check_keys() -> Iterator[None]:
    """Raise `KeyReused` when a key is used twice inside this context, by draws or `split`; `fold_in` is no use.

    Keys are told apart by value, so a key that is derived twice in the same way is found too. While a function is
    traced or transformed its keys have no value; there they are told apart by how they were folded, and what
    `split` returned by the tensor object alone: a key taken from it twice by indexing is not found. Contexts do not
    look into each other. It keeps a note of every key: use it in tests and to search for a fault, not in long runs.

    Raises:
        KeyReused: with both places of use.

    >>> from functrain import random
    >>> with check_keys():  # doctest: +ELLIPSIS
    ...     first, second = random.split(random.key(0))
    ...     a, b = random.uniform(first), random.uniform(first)
    Traceback (most recent call last):
        ...
    functrain.errors.KeyReused: the key [...] is used twice, by uniform at ... and by uniform at ...: both get ...
    """
    token = _LEDGER.set(_Ledger())
    try:
        yield
    finally:
        _LEDGER.reset(token)


def note_use(key: Tensor, by: str) -> None:
    """Tell the ledger, if there is one, that a key is used; raise `KeyReused` at the second use."""
    ledger = _LEDGER.get()
    if ledger is not None and not torch.compiler.is_compiling():
        ledger.use(key, by)


def note_derived(child: Tensor, parent: Tensor, how: tuple) -> None:
    """Tell the ledger, if there is one, how a key without a value is derived from another."""
    ledger = _LEDGER.get()
    if ledger is not None and not torch.compiler.is_compiling():
        ledger.derive(child, parent, how)


def _caller() -> str:
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("functrain.random"):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
