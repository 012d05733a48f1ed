"""Hyperparameters in the state, where they are read and edited by name while training goes on."""

import math
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import schedule, tree
from functrain.errors import InvalidArgument
from functrain.optim.context import Context
from functrain.optim.searching import search
from functrain.optim.shapes import device
from functrain.optim.transform import Transform, made_by
from functrain.records import reprs
from functrain.schedule.hyper import is_readable


@tree.node
class Injected:
    """The state of `inject`.

    Attributes:
        hypers: the hyperparameters by name, float64 scalars.
        inner: the state of the transform inside.
    """

    hypers: dict[str, Tensor]
    inner: Any


def inject(make: Callable[..., Transform], **hypers: Any) -> Transform:
    """Return the transform that a factory makes, with its numbers in the state.

    There they are tensors: a callback or a sweep edits them (`edit_injected`), nothing is traced again, and under vmap
    each state can have its own. What is no float stays an argument: a flag, a whole number, a schedule.

    Args:
        make: a function of keyword arguments that makes a transform, such as `optim.adamw`.
        **hypers: its arguments. Those that are floats, or floating-point scalar tensors, go into the state; there a
            number 0.0 leaves out no piece.

    Raises:
        InvalidArgument: make gives no transform, or refuses an argument; or no argument is a float. In `update` outside
            of a trace, an edited value is out of range.

    See also: `read_injected`, `edit_injected`.

    >>> from functrain import optim
    >>> edited, params = inject(optim.sgd, lr=0.5), {"w": torch.ones(1)}
    >>> state = edit_injected(edited.init(params), lr=0.25)
    >>> edited.update(params, state, params)[0]
    {'w': tensor([-0.2500])}
    """
    numbers = {name: hyper for name, hyper in hypers.items() if isinstance(hyper, (float, Tensor))}
    fixed = {name: hyper for name, hyper in hypers.items() if name not in numbers}
    if not numbers:
        raise InvalidArgument(f"inject needs an argument that is a float, such as lr=0.1; got {sorted(hypers)}")
    made_by(make, **hypers)

    def with_(values: dict[str, Tensor]) -> Transform:
        return make(**fixed, **values)

    first = with_({name: torch.as_tensor(number, dtype=torch.float64) for name, number in numbers.items()})

    def init(params: Any) -> Injected:
        values = {
            name: torch.as_tensor(number, dtype=torch.float64).to(device(params), copy=True)
            for name, number in numbers.items()
        }
        return Injected(values, first.init(params))

    def update(updates: Any, state: Injected, params: Any, context: Context) -> tuple[Any, Injected]:
        changed, inner = with_(state.hypers).update(updates, state.inner, params, context)
        return changed, Injected(state.hypers, inner)

    made = first.made
    return Transform(
        init,
        update,
        # Those in the state have no value of their own to show.
        {name: hyper for name, hyper in first.hypers.items() if isinstance(hyper, schedule.Schedule)},
        made=None if made is None else lambda state: made(state.inner),
        needs=first.needs,
        label=lambda: f"inject({', '.join([getattr(make, '__name__', repr(make)), *_show(hypers)])})",
    )


def _show(hypers: dict[str, Any]) -> list[str]:
    return [f"{name}={reprs.short(hyper)}" for name, hyper in hypers.items()]


def read_injected(opt_state: Any) -> dict[str, Tensor]:
    """Return the hyperparameters that a state holds, by name, wherever in it `inject` has put them.

    Args:
        opt_state: the state of an optimizer.

    Raises:
        InvalidArgument: two have one name.

    >>> from functrain import optim
    >>> read_injected(inject(optim.sgd, lr=0.5, momentum=0.9).init({}))
    {'lr': tensor(0.5000, dtype=torch.float64), 'momentum': tensor(0.9000, dtype=torch.float64)}
    """
    values: dict[str, Tensor] = {}

    def read(state: Injected) -> Injected:
        twice = [name for name in state.hypers if name in values]
        if twice:
            raise InvalidArgument(f"the state holds two hyperparameters {twice[0]!r}; edit each part of it alone")
        values.update(state.hypers)
        return tree.evolve(state, inner=_each(read, state.inner))

    _each(read, opt_state)
    return values


def edit_injected(opt_state: Any, **hypers: float | Tensor) -> Any:
    """Return a state with other hyperparameters, wherever in it `inject` has put them.

    Args:
        opt_state: the state of an optimizer.
        **hypers: the new values by name, numbers or scalar tensors.

    Raises:
        InvalidArgument: the state holds no hyperparameter of a name, or two; or a value is no finite number.

    >>> from functrain import optim
    >>> state = inject(optim.sgd, lr=0.5).init({})
    >>> read_injected(edit_injected(state, lr=0.1)), read_injected(state)
    ({'lr': tensor(0.1000, dtype=torch.float64)}, {'lr': tensor(0.5000, dtype=torch.float64)})
    """
    present = read_injected(opt_state)
    for name, value in hypers.items():
        if name not in present:
            has = ", ".join(present) or "none; the optimizer must be made by optim.inject"
            raise InvalidArgument(f"the state holds no hyperparameter {name!r}; it has {has}")
        schedule.check_hyper(name, value)
        if isinstance(value, schedule.Schedule) or not _is_finite(value):
            raise InvalidArgument(f"{name} must be a finite number, got {value!r}")

    def edit(state: Injected) -> Injected:
        new = {name: _like(old, hypers[name]) if name in hypers else old for name, old in state.hypers.items()}
        return Injected(new, _each(edit, state.inner))

    return _each(edit, opt_state)


def _is_finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not is_readable(value) or bool(value.isfinite())
    return math.isfinite(value)


def _like(old: Tensor, value: float | Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=old.dtype, device=old.device).expand_as(old).clone()


def _each(f: Callable[[Injected], Injected], state: Any) -> Any:
    """Return a state in which each outermost `Injected` went through f."""
    if isinstance(state, Injected):
        return f(state)
    if not search(state, Injected):  # so that what is like the parameters, of whatever branches, stays as it is
        return state
    if isinstance(state, dict):
        return {key: _each(f, part) for key, part in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(_each(f, part) for part in state)
    if attrs.has(type(state)):
        names = [field.name for field in attrs.fields(type(state))]
        return tree.evolve(state, **{name: _each(f, getattr(state, name)) for name in names})
    return state
