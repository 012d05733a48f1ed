"""A kernel that overwrites lists of tensors, as an operation of a graph that returns new ones."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functrain.dispatch_contexts import below_autograd
from functrain.dispatch_state import is_differentiated_by_hand, is_transformed
from functrain.operators import KERNELS, LAYOUTS, OVERWRITING, PURE

functions: Any = torch._C._VariableFunctions  # pyright: ignore
_LIBRARY = torch.library.Library("functrain", "FRAGMENT")


def define(schema: str, quick: Callable, overwriting: Callable, pure: Callable, count: int) -> Any:
    """Define an operation of lists of tensors, and return it.

    Where something is differentiated or mapped over, it is its parts.

    Args:
        schema: its name and arguments; it returns `Tensor[]`.
        quick: what computes it, into new tensors.
        overwriting: what puts the results into its first arguments.
        pure: what computes it by tensor operations that know derivatives.
        count: how many lists are overwritten; the results are theirs, in one list.
    """

    def with_gradients(*args: Any) -> list[Tensor]:
        if is_transformed() or is_differentiated_by_hand() or _wants_gradients(args):
            return pure(*args)
        with below_autograd():
            return op(*args)

    def map_over(info: Any, in_dims: tuple, *args: Any) -> tuple[list[Tensor], list[int]]:
        made = torch.vmap(pure, in_dims=tuple(in_dims))(*args)
        return list(made), [0] * len(made)

    def layout(*args: Any) -> list[Tensor]:
        return [t.new_empty_strided(t.shape, t.stride()) for tensors in args[:count] for t in tensors]

    name = schema[: schema.index("(")]
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, quick, "CompositeExplicitAutograd")
    _LIBRARY.impl(name, with_gradients, "Autograd")
    torch.library.register_fake(f"functrain::{name}", layout, lib=_LIBRARY)
    torch.library.register_vmap(f"functrain::{name}", map_over, lib=_LIBRARY)
    op = getattr(torch.ops.functrain, name).default
    KERNELS[op], PURE[op], LAYOUTS[op], OVERWRITING[op] = quick, pure, layout, (overwriting, count)
    return op


def _wants_gradients(args: tuple) -> bool:
    if not torch.is_grad_enabled():
        return False
    flat = (t for a in args for t in (a if isinstance(a, list) else [a]))
    return any(isinstance(t, Tensor) and t.requires_grad for t in flat)


_ALL = [slice(0, 1)]


def parts(tensors: list[Tensor], size: int) -> list[slice]:
    """Return slices of a list: tensors one after another until they have so many elements together.

    >>> parts([torch.zeros(2), torch.zeros(1), torch.zeros(9), torch.zeros(1)], 4)
    [slice(0, 3, None), slice(3, 4, None)]
    """
    if len(tensors) == 1:
        return _ALL
    made, begin, total = [], 0, 0
    for k, tensor in enumerate(tensors):
        total += tensor.numel()
        if total >= size:
            made.append(slice(begin, k + 1))
            begin, total = k + 1, 0
    return made if begin == len(tensors) else [*made, slice(begin, len(tensors))]
