"""Rows and columns of a matrix, each preconditioned by a matrix of its own: Shampoo."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functrain import arguments
from functrain.engine import cond
from functrain.optim.arithmetic import lerp, root, unhide
from functrain.optim.hypers import check_fixed, decays, positive
from functrain.optim.leaves import per_leaf
from functrain.optim.preconditioning.matrices import as_matrix, inverse_root
from functrain.optim.transform import Transform
from functrain.schedule import Hyper, Number


def scale_by_shampoo(b2: Hyper | None = None, eps: Number = 1e-4, every: int = 1, max_size: int = 1024) -> Transform:
    """Return the transform that multiplies a matrix by inverse roots of the second moments of its rows and columns.

    Of a matrix (n, m), L = L + G G', R = R + G' G, and U = (L + eps)^(-1/4) G (R + eps)^(-1/4), where eps stands for
    eps times the identity. An axis longer than `max_size` is left out; where one axis is left, and of a vector, the
    power is -1/2; where none is, V = V + G^2 and U = G / sqrt(V + eps). With `b2` these are means in place of sums:
    L = b2 L + (1 - b2) G G', divided by 1 - b2^t. (Gupta et al., 2018, https://arxiv.org/abs/1802.09568.)

    Args:
        b2: None for sums, as in the paper; or in [0, 1), the decay of means. The hyperparameter "b2".
        eps: above 0, keeps the roots finite.
        every: after how many updates the roots are computed again, at least 1.
        max_size: the longest axis that has a matrix, at least 1.

    Raises:
        InvalidArgument: a number is out of range.
        DtypeMismatch: in `init`, a parameter is complex.

    >>> piece, params = scale_by_shampoo(eps=1e-8), {"w": torch.zeros(2, 2)}
    >>> updates, _ = piece.update({"w": torch.diag(torch.tensor([3.0, -0.1]))}, piece.init(params), params)
    >>> updates["w"].round(decimals=3)
    tensor([[ 1.,  0.],
            [ 0., -1.]])
    """
    positive(eps=eps)
    floor: Any = check_fixed(eps=eps)["eps"]
    arguments.whole("every", every, of="updates")
    arguments.whole("max_size", max_size)
    hypers = {} if b2 is None else decays(b2=b2)

    def once(now) -> dict:
        correction = 1.0 if b2 is None else 1 / (1 - now.b2**now.t)
        return {"turn": (now.t - 1) % every == 0, "correction": correction}

    def add(now, old: Tensor, new: Tensor) -> Tensor:
        return old + new if b2 is None else lerp(old, new, 1 - now.b2)

    def take_root(now, moments: Tensor, before: Tensor, order: int) -> Tensor:
        if moments.shape[-1] == 0:
            return before

        def again() -> Tensor:
            ridge = floor * torch.eye(moments.shape[-1], dtype=moments.dtype, device=moments.device)
            # A NaN would be an error of the decomposition; it comes back below.
            return inverse_root((moments * now.correction + ridge).nan_to_num(0.0, 0.0, 0.0), order, floor)

        return again() if every == 1 else cond(now.turn, again, lambda: before * 1)

    def formula(now, g: Tensor, p: Tensor, l: Tensor, r: Tensor, l_root: Tensor, r_root: Tensor, v: Tensor):  # noqa: E741
        sides = (l.numel() > 0) + (r.numel() > 0)
        if sides == 0:
            v = add(now, v, g * g)
            return unhide(g / root(v * now.correction + floor), v), l, r, l_root, r_root, v
        matrix = u = as_matrix(g)
        if l.numel():
            l = add(now, l, matrix @ matrix.mT)  # noqa: E741
            l_root = take_root(now, l, l_root, 2 * sides)
            u = l_root @ u
        if r.numel():
            r = add(now, r, matrix.mT @ matrix)
            r_root = take_root(now, r, r_root, 2 * sides)
            u = u @ r_root
        hidden = (l.sum() + r.sum()) * 0  # what is not finite anywhere makes all of it NaN
        return u.reshape(g.shape) + hidden, l, r, l_root, r_root, v

    slots = axis_slots(max_size, ("left", "right", "left_root", "right_root"))
    return per_leaf("scale_by_shampoo", formula, hypers, slots, counts=True, once=once, real=True)


def axis_slots(
    max_size: int, names: tuple[str, str, str, str], vectors: bool = True
) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return the slots of square matrices for rows, columns, rows and columns, and of the squares of what has none.

    A slot that a parameter does not need is empty; without `vectors`, a vector has no matrix either.

    >>> slots = axis_slots(4, ("a", "b", "c", "d"))
    >>> [tuple(make(torch.zeros(3, 5)).shape) for make in slots.values()]
    [(3, 3), (0, 0), (3, 3), (0, 0), (0,)]
    """

    def square(size: int, p: Tensor) -> Tensor:
        return p.new_zeros(size, size)

    def sizes(p: Tensor) -> tuple[int, int]:
        rows, columns = as_matrix(p).shape
        kept = [size if size <= max_size else 0 for size in (rows, columns)]
        return (kept[0], kept[1]) if p.dim() > 1 else (kept[0] * vectors, 0)

    def squares(p: Tensor) -> Tensor:
        return torch.zeros_like(p) if sizes(p) == (0, 0) else p.new_zeros(0)

    makers: list[Any] = [lambda p, side=side: square(sizes(p)[side], p) for side in (0, 1, 0, 1)]
    return {**dict(zip(names, makers, strict=True)), "square": squares}
