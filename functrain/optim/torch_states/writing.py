"""The state of a transform as that of an optimizer of torch.optim."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from functrain import tree
from functrain.errors import InvalidArgument
from functrain.optim.quasi_newton.curvature import Memory
from functrain.optim.torch_states.history import write_memory
from functrain.optim.torch_states.order import order_of
from functrain.optim.torch_states.slots import SLOTS, UNCOUNTED, visit
from functrain.optim.transform import Transform, check_transform
from functrain.schedule import Schedule

Out = dict[str, dict[str, Any]]
"""What torch.optim is to keep, by the path of the parameter and its name."""


def to_torch(transform: Transform, opt_state: Any, params: Any, paths: Sequence[str] | None = None) -> dict[int, Any]:
    """Return the "state" of an optimizer of torch.optim that goes on where a transform stopped.

    Put it into the torch optimizer's own state_dict, which has the learning rate and the like:
    `theirs.load_state_dict({**theirs.state_dict(), "state": to_torch(...)})`. It writes all of torch.optim but
    SparseAdam, of whose kind there is none here.

    Args:
        transform: ours of the same name, alone or with stateless pieces around it, or a `partition` of such.
        opt_state: its state.
        params: the parameters.
        paths: the dotted paths of the parameters in the order in which the torch optimizer was given them; None where
            that is the order of params.

    Returns:
        What torch.optim keeps, by the number of the parameter; clones. Where ours counts nothing, for a count would
        change nothing, its "step" is 0.

    Raises:
        InvalidArgument: the state keeps something that torch.optim does not, or keeps one thing twice; a number of ASGD
            is a schedule; or the paths are not those of params.

    See also: `from_torch`.

    >>> from functrain import optim
    >>> adam, params = optim.adam(lr=0.1), {"weight": torch.ones(1)}
    >>> sorted(to_torch(adam, adam.init(params), params)[0])
    ['exp_avg', 'exp_avg_sq', 'step']
    """
    check_transform(transform)
    order = order_of(params, paths)
    out: Out = {path: {} for path in order}
    sizes = {path: leaf.numel() for path, leaf in tree.leaves_with_path(params)}

    def write(piece: Transform, state: Any, seen: Sequence[str]) -> Any:
        if isinstance(state, Memory):
            out[order[0]].update(write_memory(state, params, order))
            return ()
        if piece.label == "trace" and "count" in state and not int(state["count"]):
            return ()  # no buffer yet: the first gradient is not dampened
        for path, name, value in _written(piece, state, seen):
            if value.numel() == 0 and sizes[path]:
                continue  # as the rows of a vector, of which Adafactor keeps none
            _put(out[path], name, value, piece)
        return ()

    visit(transform, opt_state, order, write)
    return {number: _with_step(out[path]) for number, path in enumerate(order)}


def _with_step(kept: dict[str, Any]) -> dict[str, Any]:
    return {"step": torch.zeros(()), **kept} if UNCOUNTED & kept.keys() else kept


def _put(kept: dict[str, Any], name: str, value: Tensor, piece: Transform) -> None:
    if name in kept and not (name == "step" and float(kept[name]) == float(value)):
        raise InvalidArgument(f"the state keeps {name!r} twice, and a torch optimizer once; the second is of {piece!r}")
    kept[name] = value.clone()


def _written(piece: Transform, state: dict, paths: Sequence[str]) -> list[tuple[str, str, Tensor]]:
    """Return (path, name, value) of all that a piece keeps, in the words of torch.optim."""
    rows: list[tuple[str, str, Tensor]] = []
    for slot, name in SLOTS[str(piece.label)].items():
        value = state[slot]
        if isinstance(value, Tensor):
            rows += [(path, name, value.to(torch.float32)) for path in paths]
        else:
            rows += [(path, name, leaf) for path, leaf in tree.leaves_with_path(value)]
    shared = {}
    if "count" in state and piece.label != "trace":
        shared = {"step": state["count"].to(torch.float32)} | _derived(piece, int(state["count"]))
    return rows + [(path, name, value) for name, value in shared.items() for path in paths]


def _derived(piece: Transform, count: int) -> dict[str, Tensor]:
    """Return what ASGD keeps beside its count: the rate of the next step, and the weight of its average."""
    if piece.label == "scale_by_falling_rate":
        lr, lambd, alpha = (_number(name, piece.hypers[name]) for name in ("lr", "lambd", "alpha"))
        return {"eta": torch.tensor(lr / (1 + lambd * lr * count) ** alpha)}
    if piece.label == "average_iterates" and piece.primitive is not None:
        return {"mu": torch.tensor(1 / max(1.0, count - float(piece.primitive.hypers["start"])))}
    return {}


def _number(name: str, hyper: Any) -> float:
    if isinstance(hyper, Schedule):
        raise InvalidArgument(f"{name} must be a number, for torch.optim.ASGD keeps what follows from it; got {hyper}")
    return float(hyper)
