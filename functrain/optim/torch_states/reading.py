"""The state of an optimizer of torch.optim as that of a transform."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from functrain import tree
from functrain.errors import InvalidArgument, TreeMismatch
from functrain.optim.quasi_newton.curvature import Memory
from functrain.optim.torch_states.history import read_memory
from functrain.optim.torch_states.order import order_of
from functrain.optim.torch_states.slots import ALL, SLOTS, visit
from functrain.optim.transform import Transform, check_transform

_DERIVED = {"step", "eta", "mu"}
"""What follows from the count and the transform's numbers, or changes nothing."""

Kept = dict[str, dict[str, Any]]
"""What torch.optim keeps, by the path of the parameter and its name."""


def from_torch(transform: Transform, state: Mapping[str, Any], params: Any, paths: Sequence[str] | None = None) -> Any:
    """Return the state of a transform that goes on where an optimizer of torch.optim stopped.

    It reads all of torch.optim but SparseAdam. The numbers (learning rate and so on) are the transform's: make it with
    those of the torch optimizer.

    Args:
        transform: ours of the same name, alone or with stateless pieces around it, or a `partition` of such.
        state: the torch optimizer's `state_dict()`.
        params: the parameters, with which the transform goes on.
        paths: the dotted paths of the parameters in the order in which the torch optimizer was given them; None where
            that is the order of params, as for the parameters of `nn.from_module(module)` and `module.parameters()`, or
            where it was given them by these names, as `module.named_parameters()`.

    Returns:
        The state. Where the torch optimizer has made no step yet, it is `transform.init(params)`.

    Raises:
        InvalidArgument: it is no state_dict of an optimizer, or SparseAdam's, it keeps what the transform does not keep
            or the reverse, it counts its steps differently for its parameters, or the paths are not those of params.
        TreeMismatch: the shapes differ from those of the parameters.

    See also: `to_torch`.

    >>> from functrain import optim
    >>> weight = torch.ones(2, requires_grad=True)
    >>> theirs = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    >>> weight.grad = torch.tensor([1.0, 2.0])
    >>> theirs.step()
    >>> params = {"weight": weight.detach()}
    >>> from_torch(optim.sgd(0.1, momentum=0.9), theirs.state_dict(), params)
    ({'buffer': {'weight': tensor([1., 2.])}}, ())
    """
    check_transform(transform)
    numbers = _numbers(state)
    order = order_of(params, _names(state, params) if paths is None else paths)
    if len(numbers) != len(order):
        raise InvalidArgument(f"the torch optimizer has {len(numbers)} parameters, and params has {len(order)}")
    began = transform.init(params)
    if not any(state["state"].values()):
        return began
    _refuse_sparse(state)
    if "func_evals" in state["state"].get(numbers[0], {}):
        return _with_history(transform, began, state["state"][numbers[0]], params, order)
    kept = {
        path: {name: value for name, value in state["state"].get(number, {}).items() if value is not None}
        for path, number in zip(order, numbers, strict=True)
    }
    return _fill(transform, began, kept)


def _with_history(transform: Transform, began: Any, history: Any, params: Any, order: list[str]) -> Any:
    seen: list[Memory] = []

    def read(piece: Transform, state: Any, paths: Sequence[str]) -> Memory:
        seen.append(read_memory(state, history, params, order))
        return seen[-1]

    made = visit(transform, began, order, read)
    return made if seen else read(transform, began, order)  # which says that it is no memory


def _fill(transform: Transform, began: Any, kept: Kept) -> Any:
    names: dict[str, set[str]] = {path: set() for path in kept}

    def fill(piece: Transform, state: Any, paths: Sequence[str]) -> Any:
        if isinstance(state, Memory):
            raise InvalidArgument(f"{piece!r} keeps a history of steps, which torch.optim.LBFGS alone has")
        return {slot: of_slot(piece, slot, value, paths) for slot, value in state.items()}

    def of_slot(piece: Transform, slot: str, value: Any, paths: Sequence[str]) -> Any:
        if slot == "count":
            return _count(piece, value, [(path, kept[path]) for path in paths])
        name = SLOTS[str(piece.label)][slot]
        if isinstance(value, Tensor):
            for path in paths:
                names[path].add(name)
            return _one([(path, kept[path]) for path in paths], name, value)
        return tree.map_with_path(lambda path, leaf: of_leaf(path, name, leaf), value)

    def of_leaf(path: str, name: str, leaf: Tensor) -> Tensor:
        if leaf.numel() == 0 and name not in kept[path]:
            return leaf  # as the rows of a vector, of which Adafactor keeps none
        names[path].add(name)
        value = _value(kept, path, name)
        if value.shape != leaf.shape:
            raise TreeMismatch(
                f"{path}: the torch optimizer's {name} has the shape {tuple(value.shape)}, the parameter "
                f"{tuple(leaf.shape)}; give `paths` if the order of the parameters differs"
            )
        value = value.detach().to(leaf.device, leaf.dtype, copy=True)
        return _signs(value) if name == "prev" else value

    made = visit(transform, began, list(kept), fill)
    for path, values in kept.items():
        surplus = sorted(set(values) - names[path] - _DERIVED)
        if surplus:
            keeps = ", ".join(sorted(names[path])) or "nothing"
            raise InvalidArgument(
                f"{path}: the transform keeps {keeps}, and the torch optimizer's state {surplus[0]!r} besides; this "
                f"state keeps {surplus[0]!r}: make the transform with the options of the torch optimizer ({ALL})"
            )
    return made


def _signs(value: Tensor) -> Tensor:
    return torch.view_as_complex(torch.view_as_real(value).sign()) if value.is_complex() else value.sign()


def _value(kept: Kept, path: str, name: str) -> Any:
    values = kept[path]
    if not values and any(kept.values()):
        raise InvalidArgument(
            f"{path}: the torch optimizer has made steps for some of its parameters only; make one for all"
        )
    if name not in values:
        raise InvalidArgument(
            f"{path}: the transform keeps what torch.optim calls {name!r}, and this state has "
            f"{', '.join(sorted(values))}; make the transform with the options of the torch optimizer"
        )
    return values[name]


def _count(piece: Transform, began: Tensor, kept: list[tuple[str, dict[str, Any]]]) -> Tensor:
    if piece.label == "trace":  # SGD counts nothing, and dampens all gradients but the first
        return began + int(any("momentum_buffer" in values for _, values in kept))
    return _one(kept, "step", began)


def _one(kept: list[tuple[str, dict[str, Any]]], name: str, began: Tensor) -> Tensor:
    values = {float(_value({path: one}, path, name)) for path, one in kept}
    if len(values) > 1:
        raise InvalidArgument(
            f"the torch optimizer counts different {name}s for its parameters, "
            f"[{', '.join(f'{value:g}' for value in sorted(values))}]"
        )
    return torch.full_like(began, values.pop()) if values else began


def _numbers(state: Any) -> list[int]:
    if not isinstance(state, Mapping) or not {"state", "param_groups"} <= set(state):
        raise InvalidArgument(f"state must be the state_dict() of a torch optimizer, got {type(state).__name__}")
    return [number for group in state["param_groups"] for number in group["params"]]


def _names(state: Mapping[str, Any], params: Any) -> list[str] | None:
    """Return the names that the torch optimizer was given its parameters by, if they are the paths of params."""
    names = [name for group in state["param_groups"] for name in group.get("param_names") or ()]
    return names if sorted(names) == sorted(tree.paths(params)) else None


def _refuse_sparse(state: Mapping[str, Any]) -> None:
    for group in state["param_groups"]:
        if "betas" in group and "weight_decay" not in group:
            raise InvalidArgument(
                "this is the state of torch.optim.SparseAdam, whose moments stand still in rows that a sparse gradient "
                "does not have; gradients are dense here, and Adam would go on otherwise. Begin anew with optim.adam"
            )
