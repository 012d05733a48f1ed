"""Another optimizer on fewer rows or columns than a matrix has: the projection of GaLore."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from functrain import arguments, schedule, tree
from functrain.engine import cond
from functrain.errors import InvalidArgument, TreeMismatch
from functrain.optim.arithmetic import times
from functrain.optim.context import Context
from functrain.optim.counting import has_updated
from functrain.optim.hypers import nonnegative
from functrain.optim.preconditioning.matrices import leading_vectors
from functrain.optim.shapes import check_gradients, check_trainable, counter, explain_mismatch
from functrain.optim.transform import Transform, check_transform
from functrain.optim.wrappers.accumulation import refuse_sums
from functrain.schedule import Hyper


@tree.node
class Projected:
    """The state of `low_rank`.

    Attributes:
        updates: updates that were made, an int64 scalar.
        bases: of each matrix (n, m) the orthonormal columns, (min(n, m), rank), in float32 at least; of all else empty.
        inner: the state of the transform inside, for what is projected.
    """

    updates: Tensor
    bases: Any
    inner: Any


def low_rank(transform: Transform, rank: int, every: int = 200, scale: Hyper = 0.25) -> Transform:
    """Return the transform that lets another one see matrices of a low rank: the gradients on their main directions.

    Of a matrix (n, m) with n <= m, P are the first `rank` left singular vectors of the gradient, computed again every
    `every` updates; the transform inside sees P' G and P' p, of shape (rank, m), and U = scale P (what it makes of
    them). With n > m it is the right ones and G P. What is no matrix passes through it as it is. So the state of Adam
    is (rank, m) in place of (n, m); the state stays where P changes. (Zhao et al., 2024,
    https://arxiv.org/abs/2403.03507.)

    Args:
        transform: the transform inside, such as `optim.scale_by_adam()`. What decays weights belongs outside.
        rank: at least 1; a matrix with fewer rows or columns keeps all of them.
        every: after how many updates the directions are chosen again, at least 1.
        scale: at least 0, a factor of the matrices' updates; the hyperparameter "scale".

    Raises:
        InvalidArgument: an argument is out of range, or the transform is none, or it evaluates other parameters. In
            `init`, it accumulates.
        DtypeMismatch: in `init`, a parameter is complex.

    >>> from functrain import optim
    >>> piece, params = low_rank(optim.identity, rank=1, scale=1.0), {"w": torch.zeros(2, 3)}
    >>> gradient = torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0]])
    >>> updates, state = piece.update({"w": gradient}, piece.init(params), params)
    >>> updates["w"].round(decimals=4), state.bases["w"].shape
    (tensor([[0., 2., 0.],
            [0., 0., 0.]]), torch.Size([2, 1]))
    """
    check_transform(transform)
    arguments.whole("rank", rank)
    arguments.whole("every", every, of="updates")
    hypers = nonnegative(scale=scale)
    _check_needs(transform)

    def init(params: Any) -> Projected:
        check_trainable(params, real=True)
        bases = tree.map(partial(_no_basis, rank), params)
        inner = transform.init(tree.map(lambda p, b: _down(p, b) * 1, params, bases))
        refuse_sums(
            inner,
            f"low_rank: {transform!r} adds up what was projected, onto other directions for each batch; put it around: "
            "accumulate(k, low_rank(...))",
        )
        return Projected(counter(params), bases, inner)

    def update(updates: Any, state: Projected, params: Any, context: Context) -> tuple[Any, Projected]:
        check_gradients(updates, params)
        turn = state.updates % every == 0
        try:
            bases = tree.map(lambda g, b: _basis(g, b, turn, every), updates, state.bases)
        except (TreeMismatch, RuntimeError):
            explain_mismatch(updates, params, {"bases": (init(params).bases, state.bases)})
            raise
        seen, inner = transform.update(
            tree.map(_down, updates, bases), state.inner, tree.map(_down, params, bases), context
        )
        factor = schedule.value(scale, context)
        changed = tree.map(lambda u, b, g: _up(u, b, g, factor), seen, bases, updates)
        happened = has_updated(transform, state.inner, inner)
        return changed, Projected(state.updates + (1 if happened is None else happened), bases, inner)

    return Transform(
        init,
        update,
        {**transform.hypers, **hypers},
        made=None if transform.made is None else lambda state: state.updates,
        needs=transform.needs,
        label=lambda: f"low_rank({transform!r}, rank={rank}, every={every})",
    )


def _check_needs(transform: Transform) -> None:
    if {"evaluate", "examples"} & {*transform.needs}:
        raise InvalidArgument(
            f"low_rank: {transform!r} looks at the loss of other parameters or at single examples, of which there are "
            "only those of the whole matrices; put it outside"
        )


def _no_basis(rank: int, p: Tensor) -> Tensor:
    dtype = torch.promote_types(p.dtype, torch.float32)
    if p.dim() != 2:
        return p.new_zeros(0, dtype=dtype)
    size = min(p.shape)
    return p.new_zeros(size, min(rank, size), dtype=dtype)


def _basis(g: Tensor, before: Tensor, turn: Tensor, every: int) -> Tensor:
    if before.numel() == 0:
        return before * 1

    def chosen() -> Tensor:
        wide = g.to(before.dtype)
        usable = wide.nan_to_num(0.0, 0.0, 0.0)  # what is not finite comes back where it is projected
        return leading_vectors(usable if g.shape[0] <= g.shape[1] else usable.mT, before.shape[1])

    return chosen() if every == 1 else cond(turn, chosen, lambda: before * 1)


def _down(a: Tensor, basis: Tensor) -> Tensor:
    if a.dim() != 2:
        return a
    wide = a.to(basis.dtype)
    return (basis.mT @ wide if a.shape[0] <= a.shape[1] else wide @ basis).to(a.dtype)


def _up(u: Tensor, basis: Tensor, g: Tensor, factor: Any) -> Tensor:
    if g.dim() != 2:
        return u
    wide = times(u.to(basis.dtype), factor)
    return (basis @ wide if g.shape[0] <= g.shape[1] else wide @ basis.mT).to(g.dtype)
