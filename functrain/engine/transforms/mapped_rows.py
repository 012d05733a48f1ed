"""Rows by a number of which each row of a batch has its own: `x[k]` under `vmap`, where nothing is traced.

PyTorch takes such a number for an index of one axis less: beside a list, `x[k, :, [0, 1]]`, that puts the axes in
another order; and where a gradient is taken inside it asks for its value, which is several (2.13). Here the row is
taken as in a trace: a copy, where a loop over the batch has a view. What would show that is refused.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from torch import Tensor
from torch.overrides import _get_current_function_mode_stack

from functrain import tree
from functrain.dispatch_contexts import unseen
from functrain.dispatch_state import innermost
from functrain.engine.tracing.abstract_tensor import storage_of
from functrain.engine.tracing.meta.geometry import tensors_in
from functrain.engine.tracing.modes.staying_modes import StayingMode, answers_itself
from functrain.engine.tracing.own_functions import APPLIED, in_modes, within
from functrain.engine.tracing.refusals import Refused
from functrain.engine.tracing.rows.by_masks import BY_MASKS
from functrain.engine.tracing.rows.copied_rows import CopiedRows, index_of
from functrain.engine.tracing.rows.filling import is_mapped
from functrain.engine.tracing.rows.indexing import get_item, is_number, is_row, set_item
from functrain.errors import SideEffect

_OPERATORS = "add and floordiv lshift mod mul or pow rshift sub truediv xor"
_WRITES = {"__setitem__", "set_item", *(f"__i{name}__" for name in _OPERATORS.split())}
_ITEMS = (Tensor.__getitem__, Tensor.__setitem__)


class MappedRows(StayingMode):
    """The mode in which rows are taken, and set, by numbers that `vmap` maps over."""

    def __init__(self) -> None:
        super().__init__()
        self._rows = CopiedRows()
        self._held: list[Tensor] = []  # alive, and so are their memories
        self._is_written = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Take or set a row, or let a function run and see what it writes to."""
        args = self._seen_inside(func, args)
        is_plain = not answers_itself(types)
        if is_plain and func in _ITEMS and (any(map(_is_mapped, index_of(args[1]))) or _writes_at(func, args)):
            return self._take(*args) if func is Tensor.__getitem__ else self._put(*args)
        run = partial(self.pass_on, BY_MASKS.get(func, func) if is_plain else func, types, args, kwargs)
        return self._watch(run, args, kwargs or {}, func) if self._rows.rows else run()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Say in words why something was refused: only here, for PyTorch makes of a TypeError in `row == 0` False."""
        super().__exit__(kind, error, trace)
        if isinstance(error, Refused):
            raise SideEffect(_WORDS) from None

    def finish(self, result: Any) -> None:
        """Refuse a result that would be another if rows were views."""
        if not self._rows.rows:
            return
        self._check(tensors_in(tree.leaves(result)))
        if any(row.is_ahead for row in self._rows.rows.values()):
            raise Refused("row")

    def _seen_inside(self, func: Any, args: tuple) -> tuple:
        """Return the arguments of a function, so that this mode is on in what it calls later."""
        if func is APPLIED:
            return in_modes(args[0], self.again), *args[1:]
        return (args[0], within(args[1], self.again)) if func is Tensor.register_hook else args

    def _take(self, x: Tensor, index: Any) -> Tensor:
        self._check([x])
        row = get_item(x, index)
        if is_row(index):
            with unseen():
                inside = innermost(row), innermost(x)
            self._held += inside
            self._rows.add(storage_of(inside[0]), storage_of(inside[1]), index_of(index))
        return row

    def _put(self, x: Tensor, index: Any, value: Any) -> None:
        if isinstance(value, Tensor):
            with unseen():
                self._rows.put_back(storage_of(innermost(value)), storage_of(innermost(x)), index_of(index))
        self._watch(partial(set_item, x, index, value), (x, index, value), {}, set_item)

    def _watch(self, run: Callable[[], Any], args: tuple, kwargs: dict, func: Any) -> Any:
        with unseen():
            seen = [innermost(t) for t in tensors_in((args, tuple(kwargs.values())))]
        self._check(seen)
        before = [_times_written(t) for t in seen]
        out = run()
        for k, (tensor, count) in enumerate(zip(seen, before, strict=True)):
            if _times_written(tensor) != count or (tensor.is_inference() and k == 0 and _is_write(func)):
                self._is_written = True
                self._rows.note_write(storage_of(tensor))
        return out

    def _check(self, tensors: Any) -> None:
        if self._is_written:
            with unseen():
                for tensor in tensors:
                    self._rows.check_read(storage_of(innermost(tensor)))


def current_rows() -> MappedRows | None:
    """Return the mode of the `vmap` around the running code, if there is one.

    >>> current_rows() is None
    True
    """
    return next((mode for mode in _get_current_function_mode_stack() if isinstance(mode, MappedRows)), None)


def rows_again(mode: MappedRows | None) -> AbstractContextManager:
    """Return a mode again, for a function that runs where PyTorch has switched it off: in an `autograd.Function`.

    >>> with rows_again(current_rows()) as mode:  # there is no vmap
    ...     mode is None
    True
    """
    return nullcontext() if mode is None else mode.again()


def _is_mapped(part: Any) -> bool:
    return is_number(part) and is_mapped(part)


def _writes_at(func: Any, args: tuple) -> bool:
    """Return whether values are written by lists or tensors of indices where `vmap` maps over any of all that."""
    parts = index_of(args[1])
    if func is Tensor.__getitem__ or all(part is None or isinstance(part, (int, slice)) for part in parts):
        return False
    return is_mapped(args[0], *parts, *args[2:])


def _times_written(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _is_write(func: Any) -> bool:
    """Return whether a function is named as one that writes to its first argument, where no tensor counts that."""
    name = getattr(func, "__name__", "")
    return name in _WRITES or (name.endswith("_") and not name.endswith("__"))


_WORDS = (
    "a row taken by a number that vmap maps over, as x[k], was changed in place and then its tensor used, or the other "
    "way round; it is a view for one example, and a copy for several: write x[k] = value, and take the row anew or "
    "clone it"
)
