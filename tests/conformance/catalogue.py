"""PyTorch's database of operators, and its sample inputs: the same ones in every process."""

import functools
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

DTYPES = {str(d).removeprefix("torch."): d for d in (torch.float32, torch.bfloat16, torch.int64, torch.bool)}
DTYPES["complex64"] = torch.complex64

UNINITIALISED = ("empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided")
"""Operators whose values are whatever the memory held: shapes, dtypes and strides alone are compared."""


@attrs.frozen(eq=False)
class Sample:
    """One call of an operator: its tensors apart from all else.

    Attributes:
        tensors: the tensor leaves of its arguments.
        rebuild: tensors -> (input, args, kwargs).
        process: what the database applies to a result before it takes gradients of it.
    """

    tensors: list[Tensor]
    rebuild: Callable[[tuple], tuple[Any, tuple, dict]] = attrs.field(repr=False)
    process: Callable[[Any], Any] = attrs.field(repr=False)


@functools.cache
def operators() -> dict[str, Any]:
    """Return name -> entry of the database. The import takes some seconds, so it is made here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db

    return {op.full_name: op for op in op_db}


def supports(op: Any, dtype: str) -> bool:
    return DTYPES[dtype] in op.supported_dtypes("cpu")


@functools.lru_cache(maxsize=2)
def samples(name: str, dtype: str) -> tuple[Sample, ...]:
    """Return the sample inputs of an operator; all modes of one operator run one after another, so few are kept."""
    op = operators()[name]
    _seed()
    return tuple(map(_apart, op.sample_inputs("cpu", DTYPES[dtype], requires_grad=False)))


def error_samples(name: str) -> Iterator[Sample]:
    """Yield the inputs that the database says an operator must refuse."""
    op = operators()[name]
    _seed()
    if op.error_inputs_func is not None:
        yield from (_apart(error.sample_input) for error in op.error_inputs("cpu"))


def spread(n: int, most: int) -> list[int]:
    """Return at most so many indices below n, evenly spaced, the first and the last among them.

    >>> spread(100, 4), spread(3, 8)
    ([0, 33, 66, 99], [0, 1, 2])
    """
    return list(range(n)) if n <= most else [k * (n - 1) // (most - 1) for k in range(most)]


def _seed() -> None:
    # The samples draw from all three generators.
    import numpy

    torch.manual_seed(0)
    random.seed(0)
    numpy.random.seed(0)


def _apart(sample: Any) -> Sample:
    leaves, spec = pytree.tree_flatten((sample.input, tuple(sample.args), dict(sample.kwargs)))
    at = [k for k, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    tensors = [leaves[k] for k in at]
    rest = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]

    def rebuild(new: tuple) -> tuple[Any, tuple, dict]:
        filled = dict(zip(at, new, strict=True))
        return pytree.tree_unflatten([filled.get(k, leaf) for k, leaf in enumerate(rest)], spec)

    return Sample(tensors, rebuild, sample.output_process_fn_grad)
