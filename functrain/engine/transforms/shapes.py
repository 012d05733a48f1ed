"""What a function returns, without computing it."""

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import tree
from functrain.dispatch_contexts import unseen
from functrain.engine.tracing.abstract_tensor import abstract, abstract_as_seen
from functrain.engine.tracing.to_graph import trace
from functrain.records import reprs


@attrs.frozen(repr=False)
class ShapeDtype:
    """A tensor without values.

    Attributes:
        shape: its shape, a tuple of numbers.
        dtype: its dtype.
        device: where it stands; the CPU by default.
    """

    shape: tuple[int, ...] = attrs.field(converter=tuple)
    dtype: torch.dtype
    device: torch.device = attrs.field(default=torch.device("cpu"), converter=torch.device)

    __repr__ = reprs.record


def eval_shape(f: Callable, *args: Any, **kwargs: Any) -> Any:
    """Return the shapes, dtypes and devices of what a function returns; it is traced, and nothing is computed.

    Args:
        f: a function of trees, as `jit` takes.
        args: its arguments; a `ShapeDtype` stands for a tensor.
        kwargs: further ones.

    Returns:
        A tree like the result, with a `ShapeDtype` for each tensor.

    Raises:
        NotTraceable: the function looks at the values of a tensor.

    >>> eval_shape(lambda x: {"y": x @ x.t()}, ShapeDtype((2, 3), torch.float32))["y"].shape
    (2, 2)
    """
    leaves, spec = tree.flatten((args, kwargs))
    where = [k for k, leaf in enumerate(leaves) if isinstance(leaf, Tensor | ShapeDtype)]
    with unseen():
        examples = [_example(leaves[k]) for k in where]
    seen: list[Any] = []

    def flat(*tensors: Tensor) -> list[Tensor]:
        filled = list(leaves)
        for k, tensor in zip(where, tensors, strict=True):
            filled[k] = tensor
        args, kwargs = tree.unflatten(spec, filled)
        seen[:] = [tree.map(_describe, f(*args, **kwargs))]
        return []

    trace(flat, examples)
    return seen[0]


def _example(leaf: Tensor | ShapeDtype) -> Tensor:
    if isinstance(leaf, Tensor):
        return abstract_as_seen(leaf)
    return abstract(torch.empty(0, dtype=leaf.dtype, device=leaf.device), leaf.shape)


def _describe(leaf: Any) -> Any:
    return ShapeDtype(leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf
