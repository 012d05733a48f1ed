"""Trees as one vector of real numbers, and back."""

from functools import reduce
from typing import Any

import torch
from torch import Tensor

from functrain.optim.ordering import ordered_leaves, refill
from functrain.optim.shapes import device


def ravel(values: Any) -> Tensor:
    """Return all elements of a tree as one vector, in float32 at least; a complex number is two elements.

    The order of the keys of its dicts makes no difference.

    >>> ravel({"a": torch.ones(2), "b": torch.tensor(2 + 3j)})
    tensor([1., 1., 2., 3.])
    """
    leaves = [torch.view_as_real(leaf.resolve_conj()) if leaf.is_complex() else leaf for leaf in ordered_leaves(values)]
    dtype = reduce(torch.promote_types, [leaf.dtype for leaf in leaves], torch.float32)
    flat = [leaf.reshape(-1).to(dtype) for leaf in leaves]
    return torch.cat(flat) if flat else torch.zeros(0, dtype=dtype, device=device(values))


def unravel(vector: Tensor, like: Any) -> Any:
    """Return the tree that `ravel` made a vector of, with the dtypes of another one.

    >>> unravel(torch.tensor([1.0, 2.0, 3.0]), {"a": torch.zeros(2), "b": torch.tensor(0.0)})
    {'a': tensor([1., 2.]), 'b': tensor(3.)}
    """
    leaves = ordered_leaves(like)
    sizes = [leaf.numel() * (2 if leaf.is_complex() else 1) for leaf in leaves]
    parts = vector.split(sizes) if leaves else []
    return refill(like, [_reshape(part, leaf) for part, leaf in zip(parts, leaves, strict=True)])


def _reshape(part: Tensor, leaf: Tensor) -> Tensor:
    if leaf.is_complex():
        part = torch.view_as_complex(part.reshape(*leaf.shape, 2).contiguous())
    return part.reshape(leaf.shape).to(leaf.dtype)
