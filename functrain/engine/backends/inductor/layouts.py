"""The layouts of what Inductor returns: they must be those of eager execution, which the trace predicts.

Inductor chooses layouts of its own. The first call compares them; a result that differs is laid out anew at each call.
"""

import torch
from torch import Tensor


class Layouts:
    """The layouts that results must have: of all of them until the first call, then of those that need it.

    >>> said = torch.empty_strided((2, 2), (1, 2), device="meta")
    >>> layouts = Layouts([said])
    >>> [t.stride() for t in layouts.apply([torch.ones(2, 2)])], bool(layouts)
    ([(1, 2)], True)
    >>> fitting = Layouts([said])
    >>> _ = fitting.apply([torch.ones(2, 2).t()])
    >>> bool(fitting)
    False
    """

    def __init__(self, said: list[Tensor]) -> None:
        self._said = dict(enumerate(said))
        self._first = True

    def __bool__(self) -> bool:
        return bool(self._said)

    def apply(self, results: list[Tensor]) -> list[Tensor]:
        """Return the results with the layouts that they must have."""
        if self._first:
            self._said = {k: said for k, said in self._said.items() if not _agree(results[k], said)}
            self._first = False
        return [lay_out(t, self._said[k]) if k in self._said else t for k, t in enumerate(results)]


def _agree(seen: Tensor, said: Tensor) -> bool:
    if (seen.is_conj(), seen.is_neg()) != (said.is_conj(), said.is_neg()):
        return False
    lengths = zip(seen.stride(), said.stride(), seen.shape, strict=True)
    return seen.numel() == 0 or all(a == b or n == 1 for a, b, n in lengths)


def lay_out(tensor: Tensor, like: Tensor) -> Tensor:
    """Return the values of a tensor in the strides of another, conjugated or negated lazily where that one is.

    >>> lay_out(torch.ones(3), torch.ones(1).expand(3)).stride()
    (0,)
    """
    if like.is_conj() and not tensor.is_conj():
        return lay_out(tensor.conj_physical(), like.conj()).conj()
    if like.is_neg() and not tensor.is_neg():
        return torch._neg_view(lay_out(-tensor, torch._neg_view(like)))  # pyright: ignore
    made = torch.empty_strided(like.shape, like.stride(), dtype=tensor.dtype, device=tensor.device)
    once = tensor
    for axis, stride in enumerate(like.stride()):  # rows that are one in memory are written once
        once = once.narrow(axis, 0, 1) if stride == 0 and tensor.shape[axis] > 1 else once
    made.as_strided(once.shape, like.stride()).copy_(once)
    return made
