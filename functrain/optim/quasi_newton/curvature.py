"""The inverse of the Hessian, estimated by the last few steps: L-BFGS."""

from typing import Any

import torch
from torch import Tensor

from functrain import arguments, tree
from functrain.errors import TreeMismatch
from functrain.optim.context import Context
from functrain.optim.quasi_newton.vectors import ravel, unravel
from functrain.optim.shapes import check_gradients, check_trainable, counter
from functrain.optim.transform import Transform

CURVED = 1e-10
"""How much a gradient must change along a step for the step to say something, as in torch.optim.LBFGS."""


@tree.node
class Memory:
    """The state of `scale_by_lbfgs`; n is the number of all elements, m the length of the history.

    Attributes:
        count: updates seen, an int64 scalar.
        gradient: the gradient before, (n,).
        params: the parameters before, (n,).
        steps: the last changes s of the parameters, the newest last, (m, n).
        changes: the changes y of the gradient with them, (m, n).
        inverses: 1 / (s y) of each, and 0 where nothing is remembered yet, (m,).
        scale: (s y) / (y y) of the last, by which the estimate begins.
    """

    count: Tensor
    gradient: Tensor
    params: Tensor
    steps: Tensor
    changes: Tensor
    inverses: Tensor
    scale: Tensor


def scale_by_lbfgs(history_size: int = 10) -> Transform:
    """Return the transform that multiplies by an estimate of the inverse Hessian: u = H g, of all leaves as one vector.

    H is that of BFGS (Nocedal, 1980, https://doi.org/10.1090/S0025-5718-1980-0572855-7) over the last `history_size`
    steps along which the gradient has changed. In the first update u = g min(1, 1 / |g|_1). As in torch.optim.LBFGS. It
    needs gradients of one function, the same in each update.

    Args:
        history_size: how many steps to remember, twice the size of the parameters each.

    Raises:
        InvalidArgument: it is no whole number of at least 1.

    See also: `strong_wolfe`, which chooses how far to go; `lbfgs`.

    >>> piece, params = scale_by_lbfgs(), {"w": torch.tensor([3.0])}
    >>> _, state = piece.update({"w": torch.tensor([12.0])}, piece.init(params), params)  # of 2 w^2
    >>> piece.update({"w": torch.tensor([8.0])}, state, {"w": torch.tensor([2.0])})[0]
    {'w': tensor([2.])}
    """
    arguments.whole("history_size", history_size)

    def init(params: Any) -> Memory:
        check_trainable(params)
        zeros = torch.zeros_like(ravel(params))
        table = zeros.expand(history_size, -1)
        row = zeros.new_zeros(history_size)
        return Memory(counter(params), zeros, zeros.clone(), table.clone(), table.clone(), row, zeros.new_ones(()))

    def update(updates: Any, state: Memory, params: Any, context: Context) -> tuple[Any, Memory]:
        check_gradients(updates, params)
        g, p = ravel(updates), ravel(params)
        if p.shape != state.params.shape:
            raise TreeMismatch(
                "the optimizer state must have the structure of the gradients (was it made by init for other "
                f"parameters?), but it is of {state.params.numel()} numbers, and they are {p.numel()}"
            )
        memory = _remember(state, g, p)
        newton = _product(memory, g)
        first = g * (1 / g.abs().sum().clamp(min=1))
        return unravel(torch.where(state.count > 0, newton, first), updates), memory

    return Transform(init, update, label=lambda: f"scale_by_lbfgs(history_size={history_size})")


def _remember(state: Memory, g: Tensor, p: Tensor) -> Memory:
    s, y = p - state.params, g - state.gradient
    sy = s @ y
    tells = (state.count > 0) & (sy > CURVED)
    safe = torch.where(tells, sy, 1.0)

    def appended(rows: Tensor, row: Tensor) -> Tensor:
        return torch.where(tells, torch.cat([rows[1:], row[None]]), rows)

    return Memory(
        state.count + 1,
        g.clone(),
        p.clone(),
        appended(state.steps, s),
        appended(state.changes, y),
        appended(state.inverses, 1 / safe),
        torch.where(tells, safe / torch.where(tells, y @ y, 1.0), state.scale),
    )


def _product(memory: Memory, g: Tensor) -> Tensor:
    """Return H g by the two loops of Nocedal; a row that remembers nothing has the inverse 0, and does nothing."""
    rows = list(zip(memory.steps, memory.changes, memory.inverses, strict=True))
    q, parts = g, []
    for s, y, inverse in reversed(rows):
        part = inverse * (s @ q)
        q = q - part * y
        parts.append(part)
    q = q * memory.scale
    for (s, y, inverse), part in zip(rows, reversed(parts), strict=True):
        q = q + (part - inverse * (y @ q)) * s
    return q
