"""Vectorisation: a function of one example becomes a function of a batch."""

import re
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

from functrain.engine.tracing.recording import is_recorded
from functrain.engine.transforms.closing import all_passed_on
from functrain.engine.transforms.mapped_rows import MappedRows, current_rows
from functrain.errors import FunctrainError, InvalidArgument, SideEffect

P = ParamSpec("P")
R = TypeVar("R")


def vmap(f: Callable[P, R], in_dims: Any = 0, out_dims: Any = 0, chunk_size: int | None = None) -> Callable[P, R]:
    """Return `f` applied along an axis of its arguments at once, as a loop over that axis would.

    Args:
        f: a function of trees of tensors. Its randomness comes from keys, one a row.
        in_dims: the axis of each argument to map over, or None to share it; a number for all, or a tuple of trees.
        out_dims: where the mapped axis stands in the results.
        chunk_size: rows computed at once, None for all; a smaller number needs less memory.

    Raises:
        SideEffect: `f` writes what differs by row into a tensor that all rows share.
        InvalidArgument: `f` passes `out=` to a function.

    The method is `torch.func.vmap`, which see.

    >>> vmap(lambda row, shift: row.sum() + shift, in_dims=(0, None))(torch.ones(3, 2), torch.tensor(1.0))
    tensor([3., 3., 3.])
    """
    mapped = torch.func.vmap(_by_rows(f), in_dims, out_dims, chunk_size=chunk_size)

    @wraps(f)
    def vectorized(*args: Any, **kwargs: Any) -> Any:
        try:
            return mapped(*all_passed_on(args), **kwargs)
        except RuntimeError as error:
            refuse(error)
            raise

    return vectorized


def refuse(error: RuntimeError) -> None:
    """Raise in functrain's words what PyTorch refuses under `vmap` in its own, where it says so.

    >>> refuse(RuntimeError("something else"))
    """
    for pattern, kind, words in _REFUSED:
        seen = pattern.search(str(error))
        if seen:
            raise kind(f"vmap: {words.format(*seen.groups())}") from error


_ANEW = (
    "writes what differs by row into a tensor that all rows share; make that tensor of one of the row, as "
    "x.new_zeros(shape), or use what returns a new one, as index_put, scatter or torch.where"
)
_NO_RULE = r"not implemented for (?:aten::)?"
_REFUSED: tuple[tuple[re.Pattern, type[FunctrainError], str], ...] = (
    (re.compile(r"vmap: (?:aten::)?(\S+)\(self, \*extra_args\) is not possible"), SideEffect, "{} " + _ANEW),
    (
        re.compile(r"output with shape \[(.*)\] doesn't match the broadcast shape \[\d+, \1\]"),
        SideEffect,
        "an operation in place " + _ANEW,
    ),
    (
        re.compile(_NO_RULE + r"(\w+)\.\w*out;"),
        InvalidArgument,
        "{} is called with out=, which has no meaning for a row; use what the function returns",
    ),
    (
        re.compile(_NO_RULE + r"_(?:un)?(make|pack)_dual;"),
        InvalidArgument,
        "PyTorch can {} no dual numbers inside; take the derivative by functrain's jvp",
    ),
)
"""What PyTorch says, and what is said instead."""


def _by_rows(f: Callable) -> Callable:
    @wraps(f)
    def one(*args: Any, **kwargs: Any) -> Any:
        if is_recorded() or current_rows() is not None:
            return f(*args, **kwargs)
        with MappedRows() as mode:
            result = f(*args, **kwargs)
            mode.finish(result)
        return result

    return one
