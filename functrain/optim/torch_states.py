"""States of torch.optim read and written, so that a run can move either way."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from functrain import tree
from functrain.errors import InvalidArgument, TreeMismatch
from functrain.optim.shapes import device
from functrain.optim.transform import Transform, check_transform

_SLOTS = {"momentum_buffer": "buffer", "exp_avg": "mean", "exp_avg_sq": "square"}
"""What torch.optim's SGD, Adam and AdamW call what they keep of a parameter -> what our primitives call it."""

_KEPT = (set(), {"buffer"}, {"mean", "square", "count"})
"""What our transforms keep that are these."""


def from_torch(transform: Transform, state: Mapping[str, Any], params: Any, paths: Sequence[str] | None = None) -> Any:
    """Return the state of a transform that goes on where a torch.optim.SGD, Adam or AdamW stopped.

    The numbers (learning rate and so on) are the transform's: make it with those of the torch optimizer.

    Args:
        transform: our `sgd`, `adam` or `adamw`, alone or with pieces around it.
        state: the torch optimizer's `state_dict()`.
        params: the parameters, with which the transform goes on.
        paths: the dotted paths of the parameters in the order in which the torch optimizer was given them; None where
            that is the order of params, as for the parameters of `nn.from_module(module)` and `module.parameters()`.

    Returns:
        The state. Where the torch optimizer has made no step yet, it is `transform.init(params)`.

    Raises:
        InvalidArgument: it is no state_dict of an optimizer, it keeps what the transform does not keep or the reverse
            (SGD with dampening counts with us), it counts its steps differently for its parameters, or the paths are
            not those of params.
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
    order, groups = _order(params, paths), _numbers(state)
    if len(groups) != len(order):
        raise InvalidArgument(f"the torch optimizer has {len(groups)} parameters, and params has {len(order)}")
    kept = [state["state"].get(number) for number in groups]
    began = transform.init(params)
    if all(not one for one in kept):
        return began
    slots = _columns([{name: v for name, v in (one or {}).items() if v is not None} for one in kept])
    count = slots.pop("step", None)
    unknown = [name for name in slots if name not in _SLOTS]
    if unknown:
        raise InvalidArgument(f"from_torch reads SGD, Adam and AdamW, and this state keeps {unknown[0]!r}")
    values: dict[str, Any] = {_SLOTS[name]: _tree(name, column, params, order) for name, column in slots.items()}
    if count is not None:
        values["count"] = _one_count(count, params)
    return _replace(began, values)


def to_torch(transform: Transform, opt_state: Any, params: Any, paths: Sequence[str] | None = None) -> dict[int, Any]:
    """Return the "state" of a torch.optim.SGD, Adam or AdamW that goes on where a transform stopped.

    Put it into the torch optimizer's own state_dict, which has the learning rate and the like:
    `theirs.load_state_dict({**theirs.state_dict(), "state": to_torch(...)})`.

    Args:
        transform: our `sgd`, `adam` or `adamw`, alone or with stateless pieces around it.
        opt_state: its state.
        params: the parameters.
        paths: the dotted paths of the parameters in the order in which the torch optimizer was given them; None where
            that is the order of params.

    Returns:
        What torch.optim keeps, by the number of the parameter; clones.

    Raises:
        InvalidArgument: the state keeps something that these optimizers do not, or keeps one thing twice; or the paths
            are not those of params.

    See also: `from_torch`.

    >>> from functrain import optim
    >>> adam, params = optim.adam(lr=0.1), {"weight": torch.ones(1)}
    >>> sorted(to_torch(adam, adam.init(params), params)[0])
    ['exp_avg', 'exp_avg_sq', 'step']
    """
    check_transform(transform)
    order, names = _order(params, paths), {ours: theirs for theirs, ours in _SLOTS.items()}
    held = _states_in(opt_state)
    if set(held) not in _KEPT:
        raise InvalidArgument(
            f"to_torch writes SGD, with or without momentum, Adam and AdamW, and {transform!r} keeps "
            f"{', '.join(sorted(held))}"
        )
    columns = {
        names[name]: dict(zip(tree.paths(params), tree.leaves(slot), strict=True))
        for name, slot in held.items()
        if name != "count"
    }
    step = {} if "count" not in held else {"step": held["count"].to(torch.float32)}
    return {
        number: {
            **{name: value.clone() for name, value in step.items()},
            **{name: column[path].clone() for name, column in columns.items()},
        }
        for number, path in enumerate(order)
    }


def _order(params: Any, paths: Sequence[str] | None) -> list[str]:
    own = tree.paths(params)
    if paths is not None and sorted(paths) != sorted(own):
        wrong = sorted(set(paths) ^ set(own)) or list(paths)
        raise InvalidArgument(f"paths must be those of params, each once; they differ in {', '.join(wrong[:10])}")
    return own if paths is None else list(paths)


def _numbers(state: Any) -> list[int]:
    if not isinstance(state, Mapping) or not {"state", "param_groups"} <= set(state):
        raise InvalidArgument(f"state must be the state_dict() of a torch optimizer, got {type(state).__name__}")
    return [number for group in state["param_groups"] for number in group["params"]]


def _columns(kept: list[dict[str, Any]]) -> dict[str, list[Any]]:
    names = set(kept[0])
    if any(set(one) != names for one in kept):
        raise InvalidArgument("the torch optimizer has made steps for some of its parameters only; make one for all")
    return {name: [one[name] for one in kept] for name in kept[0]}


def _tree(name: str, column: list[Tensor], params: Any, order: list[str]) -> Any:
    by_path = dict(zip(order, column, strict=True))

    def of_leaf(path: str, param: Tensor) -> Tensor:
        value = by_path[path]
        if value.shape != param.shape:
            raise TreeMismatch(
                f"{path}: the torch optimizer's {name} has the shape {tuple(value.shape)}, the parameter "
                f"{tuple(param.shape)}; give `paths` if the order of the parameters differs"
            )
        return value.detach().to(param.device, torch.promote_types(param.dtype, torch.float32), copy=True)

    return tree.map_with_path(of_leaf, params)


def _one_count(counts: list[Any], params: Any) -> Tensor:
    whole = {int(count) for count in counts}
    if len(whole) > 1:
        raise InvalidArgument(f"the torch optimizer counts different steps for its parameters, {sorted(whole)}")
    return torch.full((), whole.pop(), dtype=torch.int64, device=device(params))


def _states_in(state: Any) -> dict[str, Any]:
    """Return the slots of a state by name, wherever in it they are."""
    held: dict[str, Any] = {}
    for part in _parts(state):
        for name, slot in part.items():
            if name in held:
                raise InvalidArgument(f"the state keeps {name!r} twice, and a torch optimizer once")
            held[name] = slot
    return held


def _parts(state: Any) -> list[dict[str, Any]]:
    if isinstance(state, dict):
        return [state]
    if isinstance(state, tuple):
        return [part for one in state for part in _parts(one)]
    raise InvalidArgument(
        f"the state of a chain is wanted, and this holds {type(state).__name__}; take the optimizer inside"
    )


def _replace(began: Any, values: dict[str, Any]) -> Any:
    held = set(_states_in(began))
    if held != set(values):
        raise InvalidArgument(
            f"the transform keeps {', '.join(sorted(held)) or 'nothing'}, and the torch optimizer what we call "
            f"{', '.join(sorted(values)) or 'nothing'}; make the transform with the options of the torch optimizer"
        )

    def replaced(state: Any) -> Any:
        if isinstance(state, dict):
            return {name: values[name] for name in state}
        return tuple(replaced(one) for one in state)

    return replaced(began)
