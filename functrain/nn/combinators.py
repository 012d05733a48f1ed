"""Combinators: models made of models. Each takes models and returns one, so they nest in any way.

The parts have names, which are the keys of the parameter dict: their position ("0", "1", ... as in
`torch.nn.Sequential`, where layers without parameters count too), the keyword they are passed by, or what `named` says.

>>> import torch
>>> from functrain import nn, random
>>> model = nn.serial(nn.dense(4), nn.relu, head=nn.dense(2))
>>> params, buffers = model.init(random.key(0), torch.zeros(1, 3))
>>> {name: list(layer) for name, layer in params.items()}
{'0': ['weight', 'bias'], 'head': ['weight', 'bias']}
"""

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import random
from functrain.errors import DuplicateName, InvalidArgument, NotATensor, ShapeMismatch
from functrain.nn.misfit import check_present, inside, locate
from functrain.nn.model import EVALUATION, Buffers, Mode, Model, Params, enter
from functrain.nn.options import whole

Child = tuple[str, Model]


def lam(f: Callable[[Any], Any]) -> Model:
    """Return the layer that applies a function and has no parameters.

    Args:
        f: a pure function of the input.

    Raises:
        InvalidArgument: f is no function, or a `torch.nn.Module`, whose parameters would be out of sight.

    >>> double = lam(lambda x: 2 * x)
    >>> double.apply({}, {}, torch.ones(2))
    (tensor([2., 2.]), {})
    """
    if isinstance(f, torch.nn.Module):
        raise InvalidArgument(
            f"f must be a function, got the module {type(f).__name__}, whose parameters and mode would be out of "
            "sight; take the layer of functrain.nn, or the function in torch.nn.functional"
        )
    if not callable(f):
        raise InvalidArgument(f"f must be a function of the input, got {f!r}")

    def init(key: Tensor, example: Any) -> tuple[Params, Buffers]:
        return {}, {}

    def apply(params: Params, buffers: Buffers, x: Any, mode: Mode = EVALUATION) -> tuple[Any, Buffers]:
        return f(x), buffers

    return Model(init, apply)


identity = lam(lambda x: x)
"""The layer that returns its input."""


def named(name: str, layer: Model) -> Model:
    """Return the layer with a name of its own, by which a combinator calls it instead of by its position.

    Args:
        name: not empty and without a dot, which separates the names of a path.
        layer: any model.

    Raises:
        InvalidArgument: the name is none, or the layer is no model.

    >>> model = serial(named("double", lam(lambda x: 2 * x)), named("half", lam(lambda x: x / 2)))
    >>> model.apply({}, {}, torch.ones(1))
    (tensor([1.]), {})
    """
    _check_name(name)
    return attrs.evolve(_check_model(name, layer), name=name)


def serial(*layers: Model, **named: Model) -> Model:
    """Return the composition of layers: the output of each is the input of the next. Without any it is the identity.

    Args:
        layers: models, whose names are their positions unless `named` says otherwise.
        named: further models, which follow those, by name.

    Raises:
        InvalidArgument: a layer is no model.
        DuplicateName: two layers have one name.

    See also: `parallel`, `residual`, `repeat`.

    >>> from functrain import nn
    >>> model = serial(nn.flatten, nn.dense(10), nn.relu)
    >>> params, buffers = model.init(random.key(0), torch.zeros(1, 28, 28))
    >>> params["1"]["weight"].shape
    torch.Size([10, 784])
    >>> y, buffers = model.apply(params, buffers, torch.zeros(64, 28, 28))
    >>> y.shape
    torch.Size([64, 10])
    """
    children = _children(layers, named)
    steps = tuple((name, layer.apply) for name, layer in children)

    def init(key: Tensor, example: Any) -> tuple[Params, Buffers]:
        params, buffers, x = {}, {}, example
        for name, layer in children:
            x = _init_child(name, layer, key, x, params, buffers)
        return params, buffers

    def apply(params: Params, buffers: Buffers, x: Any, mode: Mode = EVALUATION) -> tuple[Any, Buffers]:
        _check_dicts("serial", params, buffers)
        kept = buffers
        for name, step in steps:
            before = buffers.get(name, {})
            try:
                x, after = step(params.get(name, {}), before, x, enter(mode, name))
            except Exception as error:
                locate(error, name)
                raise
            if after is not before:
                kept = _replaced(kept, name, after)
        return x, kept

    return _combined(init, apply, children)


def repeat(count: int, layer: Model) -> Model:
    """Return `count` copies of a layer after one another, each with parameters of its own.

    Args:
        count: how many, at least 0.
        layer: a model whose output fits its input.

    Raises:
        InvalidArgument: count is no such number, or the layer is no model.

    >>> from functrain import nn
    >>> params, _ = repeat(3, nn.dense(2)).init(random.key(0), torch.zeros(1, 2))
    >>> list(params)
    ['0', '1', '2']
    """
    whole("count", count, minimum=0)
    return serial(*[attrs.evolve(_check_model("layer", layer), name=None)] * count)


def residual(layer: Model, shortcut: Model = identity) -> Model:
    """Return x + layer(x), or shortcut(x) + layer(x).

    The names of its parts are "layer" and "shortcut", unless `named` says otherwise.

    Args:
        layer: a model.
        shortcut: a model whose output has the shape of the layer's; the identity by default.

    Raises:
        InvalidArgument: one is no model.
        ShapeMismatch: when initialised or applied, the two outputs differ in shape.

    Reference: He et al., Deep residual learning for image recognition, CVPR 2016.

    >>> residual(lam(lambda x: 2 * x)).apply({}, {}, torch.ones(2))
    (tensor([3., 3.]), {})
    """
    parts = (("layer", layer), ("shortcut", shortcut))
    children = _check_names([(_check_model(name, part).name or name, part) for name, part in parts])
    return _branches(children, _add)


def parallel(*layers: Model, combine: str | Callable[[list], Any] = "sum", **named: Model) -> Model:
    """Return the layers applied to the same input, their outputs combined.

    Args:
        layers: models, whose names are their positions unless `named` says otherwise.
        combine: "sum"; "concat", along axis 1, that of channels and features; "tuple"; or a function of the list of
            outputs that treats each row by itself.
        named: further models by name.

    Raises:
        InvalidArgument: combine is none of these, a layer is no model, or there is none.
        DuplicateName: two layers have one name.
        ShapeMismatch: when initialised or applied, the outputs do not fit together.

    >>> both = parallel(identity, lam(lambda x: -x), combine="concat")
    >>> both.apply({}, {}, torch.ones(1, 2))
    (tensor([[ 1.,  1., -1., -1.]]), {})
    """
    if not callable(combine) and combine not in _COMBINE:
        raise InvalidArgument(f"combine must be 'sum', 'concat', 'tuple' or a function of the outputs, got {combine!r}")
    children = _children(layers, named)
    if not children:
        raise InvalidArgument("parallel needs at least one layer; nn.identity is the layer that does nothing")
    return _branches(children, combine if callable(combine) else _COMBINE[combine])


def _branches(children: Sequence[Child], combine: Callable[[list], Any]) -> Model:
    def init(key: Tensor, example: Any) -> tuple[Params, Buffers]:
        params, buffers = {}, {}
        combine([_init_child(name, layer, key, example, params, buffers) for name, layer in children])
        return params, buffers

    def apply(params: Params, buffers: Buffers, x: Any, mode: Mode = EVALUATION) -> tuple[Any, Buffers]:
        _check_dicts("parallel", params, buffers)
        kept, outputs = buffers, []
        for name, layer in children:
            before = buffers.get(name, {})
            try:
                y, after = layer.apply(params.get(name, {}), before, x, enter(mode, name))
            except Exception as error:
                locate(error, name)
                raise
            outputs.append(y)
            if after is not before:
                kept = _replaced(kept, name, after)
        return combine(outputs), kept

    return _combined(init, apply, children)


def _add(outputs: list) -> Tensor:
    _check_outputs("sum", outputs, lambda y: y.shape)
    total, *others = outputs
    for other in others:
        total = total + other
    return total


def _concat(outputs: list) -> Tensor:
    _check_outputs("concat", outputs, lambda y: (y.dim(), y.shape[:1], y.shape[2:]))
    return torch.cat(outputs, dim=1)


_COMBINE: dict[str, Callable[[list], Any]] = {"sum": _add, "concat": _concat, "tuple": tuple}


def _check_outputs(what: str, outputs: list, form: Callable[[Tensor], Any]) -> None:
    for y in outputs:
        if not isinstance(y, Tensor):
            raise NotATensor(f"{what}: each layer must return a tensor, got {type(y).__name__}")
        if form(y) != form(outputs[0]):
            shapes = " and ".join(str(tuple(y.shape)) for y in outputs)
            rule = "one shape" if what == "sum" else "one shape but for axis 1"
            raise ShapeMismatch(f"{what}: the outputs of the layers must have {rule}, got {shapes}")


# What combinators share.


def _init_child(name: str, layer: Model, key: Tensor, x: Any, params: Params, buffers: Buffers) -> Any:
    """Add the child's params and buffers to the dicts that are being built, and return its output."""
    own_key = random.fold_in(key, name)
    with torch.no_grad(), inside(name):
        own_params, own_buffers = layer.init(own_key, x)
        y, _ = layer.apply(own_params, own_buffers, x, EVALUATION)
    if own_params:
        params[name] = own_params
    if own_buffers:
        buffers[name] = own_buffers
    return y


def _replaced(buffers: Buffers, name: str, after: Buffers) -> Buffers:
    # A child without buffers may return a new empty dict; the structure must not change for that.
    return {**buffers, name: after} if after or name in buffers else buffers


def _combined(init: Callable, apply: Callable, children: Sequence[Child]) -> Model:
    hypers = {f"{name}.{path}": hyper for name, layer in children for path, hyper in layer.hypers.items()}
    return Model(init, apply, hypers)


def _check_dicts(what: str, params: Any, buffers: Any) -> None:
    if type(params) is not dict or type(buffers) is not dict:
        check_present(what, params, ())
        check_present(what, buffers, (), "buffers")


def _children(layers: Sequence[Model], named: dict[str, Model]) -> tuple[Child, ...]:
    positional = [(_check_model(str(i), layer).name or str(i), layer) for i, layer in enumerate(layers)]
    return _check_names([*positional, *((name, _check_model(name, layer)) for name, layer in named.items())])


def _check_names(children: Sequence[Child]) -> tuple[Child, ...]:
    taken = set()
    for name, _ in children:
        _check_name(name)
        if name in taken:
            raise DuplicateName(f"two layers have the name {name!r}; give one another name with nn.named or a keyword")
        taken.add(name)
    return tuple(children)


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name or "." in name:
        raise InvalidArgument(f"name must be a string, not empty and without a dot, got {name!r}")


def _check_model(name: str, layer: Any) -> Model:
    if isinstance(layer, Model):
        return layer
    hint = (
        "call it to make the layer, or wrap a function of the input in nn.lam"
        if callable(layer)
        else "see functrain.nn"
    )
    raise InvalidArgument(f"layer {name} must be a Model, got {getattr(layer, '__name__', repr(layer))}; {hint}")
