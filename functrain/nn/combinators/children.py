"""What combinators share: their children by name, initialising and applying one, and which names they take."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import random
from functrain.errors import DuplicateName, InvalidArgument, NotATensor, TreeMismatch
from functrain.nn.formula import check_names
from functrain.nn.functions import as_model
from functrain.nn.locating import inside, locate
from functrain.nn.mode import EVALUATION, Mode, enter
from functrain.nn.model import Buffers, Model, Params
from functrain.nn.observing import note_entry, note_return

Child = tuple[str, Model]


def children_of(layers: Sequence[Any], named: Mapping[str, Any]) -> tuple[Child, ...]:
    """Return the layers with their names: their position, what `named` said, or the keyword.

    >>> from functrain import nn
    >>> children_of([nn.dense(2), torch.relu], {"head": nn.dense(1)})
    (('0', dense(2)), ('1', relu), ('head', dense(1)))
    """
    positional = [_at_position(i, as_model(f"layer {i}", layer)) for i, layer in enumerate(layers)]
    return check_distinct([*positional, *((name, as_model(f"layer {name}", layer)) for name, layer in named.items())])


def _at_position(i: int, layer: Model) -> Child:
    return layer.name or str(i), layer


def check_distinct(children: Iterable[Child]) -> tuple[Child, ...]:
    """Return the children after checking that each has a name, and one of its own."""
    taken = set()
    children = tuple(children)
    for name, _ in children:
        check_name(name)
        if name in taken:
            raise DuplicateName(f"two layers have the name {name!r}; give one another name with nn.named or a keyword")
        taken.add(name)
    return children


def check_name(name: Any) -> None:
    """Raise unless this can be the name of a layer."""
    if not isinstance(name, str) or not name or "." in name:
        raise InvalidArgument(f"name must be a string, not empty and without a dot, got {name!r}")


def init_child(name: str, layer: Model, key: Tensor, x: Any, params: Params, buffers: Buffers) -> Any:
    """Add the child's params and buffers to the dicts that are being built, and return its output."""
    own_key = random.fold_in(key, name)
    with torch.no_grad(), inside(name):
        own_params, own_buffers = layer.init(own_key, x)
        for kind, own in (("params", own_params), ("buffers", own_buffers)):
            _check_tensors(layer, kind, own)
    y, _ = apply_child(name, layer, {name: own_params}, {name: own_buffers}, x, EVALUATION)
    if own_params:
        params[name] = own_params
    if own_buffers:
        buffers[name] = own_buffers
    return y


def _check_tensors(layer: Model, kind: str, own: Any, path: str = "") -> None:
    if isinstance(own, Mapping):
        for name, value in own.items():
            _check_tensors(layer, kind, value, f"{path}.{name}" if path else str(name))
    elif not isinstance(own, Tensor):
        what = f"{kind} at {path} must be a tensor" if path else f"{kind} must be a dict of tensors"
        raise NotATensor(
            f"{layer}: {what}, got {own!r:.60}; a number that changes is torch.tensor(number), one that does not "
            "belongs into the formula"
        )


def apply_child(name: str, layer: Model, params: Params, buffers: Buffers, x: Any, mode: Mode) -> tuple[Any, Buffers]:
    """Return the child's output, and the buffers of all children with the child's new ones."""
    before = buffers.get(name, {})
    try:
        own = enter(mode, name)
        note_entry(own.path)
        result = layer.apply(params.get(name, {}), before, x, own)
        if type(result) is not tuple or len(result) != 2:
            raise _no_pair(layer, result)
    except Exception as error:
        error = _without_mode(layer, error)
        locate(error, name)
        raise error from error.__cause__
    y, after = result
    note_return(own.path, layer, y)
    if after is before:
        return y, buffers
    # A child without buffers may return a new empty dict; the structure must not change for that.
    return y, {**buffers, name: after} if after or name in buffers else buffers


def _no_pair(layer: Model, result: Any) -> NotATensor:
    return NotATensor(
        f"{layer}: apply must return the pair (y, buffers), got {type(result).__name__}; return `y, buffers`, with the "
        "buffers as they came where nothing changed"
    )


def _without_mode(layer: Model, error: Exception) -> Exception:
    """Return the error that says so where `apply` does not take a mode, and the error itself elsewhere."""
    if not isinstance(error, TypeError):
        return error
    try:
        inspect.signature(layer.apply).bind({}, {}, None, None)
    except ValueError:
        return error
    except TypeError:
        return InvalidArgument(f"{layer}: apply must take (params, buffers, x, mode), but it raised: {error}")
    return error


def check_dicts(label: str, names: frozenset[str], params: Any, buffers: Any) -> None:
    """Raise `TreeMismatch` unless params and buffers are dicts that hold nothing but these children."""
    for kind, held in (("params", params), ("buffers", buffers)):
        if type(held) is not dict:
            check_names(label, held, (), kind)
        if not names.issuperset(held):
            surplus = [str(name) for name in held if name not in names]
            raise TreeMismatch(
                f"{label}: {kind} hold {' and '.join(surplus)}, but the layers are "
                f"{', '.join(sorted(names)) or 'none'}; pass what this model's init returned"
            )


def combination(label: str, init: Callable, apply: Callable, children: Sequence[Child]) -> Model:
    """Return the model of these functions, with the hyperparameters of its children."""
    hypers = {f"{name}.{path}": hyper for name, layer in children for path, hyper in layer.hypers.items()}
    return Model(init, apply, hypers, label=label)


def label_of(what: str, children: Iterable[Child], *options: str) -> str:
    """Return a repr of a combination: the children in order, those with a name of their own by it.

    >>> from functrain import nn
    >>> label_of("serial", [("0", nn.dense(2)), ("head", nn.dense(1))])
    'serial(dense(2), head=dense(1))'
    """
    parts = [str(layer) if name.isdigit() else f"{name}={layer}" for name, layer in children]
    return f"{what}({', '.join([*parts, *options])})"


def rename(name: str | None, layer: Model) -> Model:
    """Return the layer with another name, or with none."""
    return attrs.evolve(layer, name=name)
