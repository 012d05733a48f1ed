"""Adam in the basis in which a matrix's rows and columns vary by themselves: SOAP."""

import torch
from torch import Tensor

from functrain import arguments
from functrain.engine import cond
from functrain.optim.arithmetic import lerp, mean_square, root, unhide
from functrain.optim.hypers import decays, nonnegative
from functrain.optim.leaves import per_leaf
from functrain.optim.preconditioning.axes import axis_slots
from functrain.optim.preconditioning.matrices import as_matrix, eigenbasis, refined_basis
from functrain.optim.transform import Transform
from functrain.schedule import Hyper


def scale_by_soap(
    b1: Hyper = 0.95,
    b2: Hyper = 0.95,
    b3: Hyper | None = None,
    eps: Hyper = 1e-8,
    every: int = 10,
    max_size: int = 10000,
) -> Transform:
    """Return the transform of Adam in the eigenbasis of the second moments of a matrix's rows and columns.

    Of a matrix, with bases P and Q: G' = P' G Q, M = b1 M + (1 - b1) G', V = b2 V + (1 - b2) G'^2, and
    U = P (M sqrt(1 - b2^s) / (1 - b1^s) / (sqrt(V) + eps)) Q'. Then L = b3 L + (1 - b3) G G' and
    R = b3 R + (1 - b3) G' G, and after every `every` updates P and Q take one power iteration towards their eigenbases,
    M is turned along, and V takes the new order of the columns. The first update is 0 and sets the bases, and s counts
    those after it. An axis longer than `max_size` keeps its own basis, and so does a vector: that is Adam.
    (Vyas et al., 2025, https://arxiv.org/abs/2409.11321; as in the authors' code, which counts weight decay after the
    step. A derivative through a change of bases exists where the moments have no eigenvalue twice.)

    Args:
        b1: in [0, 1), the decay of the mean; the hyperparameter "b1".
        b2: in [0, 1), the decay of the mean square; the hyperparameter "b2".
        b3: in [0, 1), the decay of L and R; None for b2. The hyperparameter "b3".
        eps: at least 0, keeps the divisor away from zero; the hyperparameter "eps".
        every: after how many updates the bases change, at least 1.
        max_size: the longest axis that has a basis, at least 1.

    Raises:
        InvalidArgument: a number is out of range.
        DtypeMismatch: in `init`, a parameter is complex.

    >>> piece, params = scale_by_soap(), {"w": torch.zeros(2, 2)}
    >>> gradient, state = {"w": torch.diag(torch.tensor([3.0, -0.1]))}, piece.init(params)
    >>> _, state = piece.update(gradient, state, params)
    >>> piece.update(gradient, state, params)[0]["w"].round(decimals=3)
    tensor([[ 1.,  0.],
            [ 0., -1.]])
    """
    arguments.whole("every", every, of="updates")
    arguments.whole("max_size", max_size)
    hypers = decays(b1=b1, b2=b2) | nonnegative(eps=eps) | ({} if b3 is None else decays(b3=b3))

    def once(now) -> dict:
        steps = (now.t - 1).clamp(min=1)
        return {
            "factor": (1 - now.b2**steps).sqrt() / (1 - now.b1**steps),
            "part": 1 - (now.b2 if b3 is None else now.b3),
            "first": now.t == 1,
            "turn": (now.t > 1) & ((now.t - 1) % every == 0),
        }

    def formula(now, g: Tensor, p: Tensor, l: Tensor, r: Tensor, rows: Tensor, columns: Tensor, m: Tensor, v: Tensor):  # noqa: E741
        matrix = as_matrix(g)
        seen = torch.where(now.first, 0.0, turn(matrix, rows, columns))
        m, v = lerp(m, seen, 1 - now.b1), mean_square(v, seen, now.b2)
        u = turn(unhide(m * now.factor / _nonzero(root(v) + now.eps), v), rows.mT, columns.mT)
        l = lerp(l, matrix @ matrix.mT, now.part) if l.numel() else l  # noqa: E741
        r = lerp(r, matrix.mT @ matrix, now.part) if r.numel() else r
        rows, columns, m, v = change(now, l, r, rows, columns, m, v)
        return u.reshape(g.shape) + (g.sum() + l.sum() + r.sum()) * 0, l, r, rows, columns, m, v

    def change(now, l: Tensor, r: Tensor, rows: Tensor, columns: Tensor, m: Tensor, v: Tensor):  # noqa: E741
        if l.numel() + r.numel() == 0:
            return rows, columns, m, v

        def begun() -> tuple[Tensor, ...]:
            return _eigen(l, rows), _eigen(r, columns), m * 1, v * 1

        def refined() -> tuple[Tensor, ...]:
            return _refine(l, r, rows, columns, m, v)

        def kept() -> tuple[Tensor, ...]:
            return rows * 1, columns * 1, m * 1, v * 1

        return cond(now.first, begun, lambda: cond(now.turn, refined, kept))

    def init_mean(p: Tensor) -> Tensor:
        return torch.zeros_like(as_matrix(p))

    axes = axis_slots(max_size, ("left", "right", "rows", "columns"), vectors=False)
    slots = {name: make for name, make in axes.items() if name != "square"} | {"mean": init_mean, "square": init_mean}
    return per_leaf("scale_by_soap", formula, hypers, slots, counts=True, once=once, real=True)


def turn(a: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return a matrix in other bases, rows' a columns; an empty one is the basis that it has.

    >>> turn(torch.ones(2, 1), torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.zeros(0, 0))
    tensor([[1.],
            [1.]])
    """
    a = rows.mT @ a if rows.numel() else a
    return a @ columns if columns.numel() else a


def _eigen(moments: Tensor, before: Tensor) -> Tensor:
    return eigenbasis(moments.nan_to_num(0.0, 0.0, 0.0)) if moments.numel() else before * 1


def _refine(l: Tensor, r: Tensor, rows: Tensor, columns: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, ...]:  # noqa: E741
    plain = turn(m, rows.mT, columns.mT)
    new_rows, new_columns = rows * 1, columns * 1
    if l.numel():
        new_rows, order = refined_basis(l.nan_to_num(0.0, 0.0, 0.0), rows)
        v = v.index_select(0, order)
    if r.numel():
        new_columns, order = refined_basis(r.nan_to_num(0.0, 0.0, 0.0), columns)
        v = v.index_select(1, order)
    return new_rows, new_columns, turn(plain, new_rows, new_columns), v * 1


def _nonzero(a: Tensor) -> Tensor:
    return torch.where(a == 0, 1.0, a)
