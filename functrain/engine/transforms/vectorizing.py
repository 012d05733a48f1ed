"""Vectorisation: a function of one example becomes a function of a batch."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

from functrain.engine.tracing.mapped_refusals import refuse_mapped
from functrain.engine.tracing.recording import is_recorded
from functrain.engine.transforms.closing import all_passed_on
from functrain.engine.transforms.mapped_rows import MappedRows, current_rows

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
        NotTraceable: `f` looks at the values of a tensor, or shapes a result by them, as `x[mask]` does.
        InvalidArgument: `f` passes `out=` to a function, or writes by a mask beside other tensors of indices.

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
            refuse_mapped(error)
            raise

    return vectorized


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
