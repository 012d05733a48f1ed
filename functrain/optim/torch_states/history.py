"""The state of torch.optim.LBFGS, which is one of all parameters: the last steps, and how the gradient changed."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from functrain import tree
from functrain.errors import InvalidArgument
from functrain.optim.ordering import ordered_leaves, refill
from functrain.optim.quasi_newton.curvature import Memory
from functrain.optim.quasi_newton.vectors import ravel


def read_memory(began: Any, kept: Mapping[str, Any], params: Any, order: Sequence[str]) -> Memory:
    """Return the history that torch.optim.LBFGS keeps, as `scale_by_lbfgs` keeps it.

    Args:
        began: our first state.
        kept: what it keeps, all of it with its first parameter.
        params: the parameters now.
        order: their paths, in its order.
    """
    if not isinstance(began, Memory):
        raise InvalidArgument("this is the state of torch.optim.LBFGS, which optim.lbfgs alone goes on with")
    rows, most = kept.get("old_stps", []), began.steps.shape[0]
    if len(rows) > most:
        raise InvalidArgument(
            f"the torch optimizer remembers {len(rows)} steps and the transform {most}; make that with "
            f"history_size={len(rows)}"
        )
    if not kept["n_iter"]:
        return began
    columns = _columns(params, order)

    def vector(flat: Tensor) -> Tensor:
        return torch.empty_like(began.gradient).index_copy(0, columns, flat.detach().to(began.gradient))

    def table(flats: Sequence[Tensor], like: Tensor) -> Tensor:
        return torch.stack([*like[len(flats) :], *map(vector, flats)])

    inverses = [torch.as_tensor(ro).to(began.inverses) for ro in kept["ro"]]
    return Memory(
        torch.full_like(began.count, kept["n_iter"]),
        vector(kept["prev_flat_grad"]),
        ravel(params) - float(kept["t"]) * vector(kept["d"]),
        table(rows, began.steps),
        table(kept["old_dirs"], began.changes),
        torch.stack([*began.inverses[len(rows) :], *inverses]),
        torch.as_tensor(kept["H_diag"]).to(began.scale),
    )


def write_memory(memory: Memory, params: Any, order: Sequence[str]) -> dict[str, Any]:
    """Return our history as torch.optim.LBFGS keeps it with its first parameter, nothing where there is none.

    Args:
        memory: our state.
        params: the parameters now.
        order: their paths, in its order.
    """
    count, columns = int(memory.count), _columns(params, order)
    if not count:
        return {}
    rows = [k for k, inverse in enumerate(memory.inverses.tolist()) if inverse]
    return {
        "func_evals": count,
        "n_iter": count,
        "d": (ravel(params) - memory.params)[columns],
        "t": 1.0,
        "old_dirs": [memory.changes[k][columns] for k in rows],
        "old_stps": [memory.steps[k][columns] for k in rows],
        "ro": [memory.inverses[k].clone() for k in rows],
        "H_diag": memory.scale.clone(),
        "prev_flat_grad": memory.gradient[columns],
        "prev_loss": None,  # which it sets before it looks at it
    }


def _columns(params: Any, order: Sequence[str]) -> Tensor:
    """Return where in our vector the elements of its vector stand."""
    numbers, begin = [], 0
    for leaf in ordered_leaves(params):
        size = leaf.numel() * (2 if leaf.is_complex() else 1)
        numbers.append(torch.arange(begin, begin + size, device=leaf.device))
        begin += size
    by_path = dict(tree.leaves_with_path(refill(params, numbers)))
    return torch.cat([by_path[path] for path in order])
