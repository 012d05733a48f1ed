"""Layers beside one another: on the same input, their outputs combined."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from functrain.errors import InvalidArgument, NotATensor, ShapeMismatch
from functrain.nn.combinators.children import (
    Child,
    apply_child,
    check_dicts,
    check_distinct,
    children_of,
    combination,
    init_child,
    label_of,
)
from functrain.nn.functions import as_model, function_name
from functrain.nn.mode import EVALUATION, Mode
from functrain.nn.model import Buffers, Model, Params


def identity(x: Any) -> Any:
    """Return the input: the layer that does nothing.

    >>> identity(3)
    3
    """
    return x


def residual(layer: Any, shortcut: Any = identity) -> Model:
    """Return x + layer(x), or shortcut(x) + layer(x).

    The names of its parts are "layer" and "shortcut", unless `named` says otherwise.

    Args:
        layer: a layer.
        shortcut: a layer whose output has the shape of the other's; the identity by default.

    Raises:
        InvalidArgument: one is no layer.
        ShapeMismatch: when initialised or applied, the two outputs differ in shape.

    Reference: He et al., Deep residual learning for image recognition, CVPR 2016.

    >>> residual(lambda x: 2 * x).apply({}, {}, torch.ones(2))
    (tensor([3., 3.]), {})
    """
    main, short = as_model("layer layer", layer), as_model("layer shortcut", shortcut)
    children = check_distinct([(main.name or "layer", main), (short.name or "shortcut", short)])
    label = f"residual({main})" if shortcut is identity else f"residual({main}, {short})"
    return _branches("residual", label, children, _add)


def parallel(*layers: Any, combine: str | Callable[[list], Any] = "sum", **named: Any) -> Model:
    """Return the layers applied to the same input, their outputs combined.

    Args:
        layers: layers, whose names are their positions unless `named` says otherwise.
        combine: "sum"; "concat", along axis 1, that of channels and features; "tuple"; or a function of the list of
            outputs.
        named: further layers by name.

    Raises:
        InvalidArgument: combine is none of these, something is no layer, or there is none.
        DuplicateName: two layers have one name.
        ShapeMismatch: when initialised or applied, the outputs do not fit together.

    >>> both = parallel(identity, lambda x: -x, combine="concat")
    >>> both.apply({}, {}, torch.ones(1, 2))
    (tensor([[ 1.,  1., -1., -1.]]), {})
    """
    if not callable(combine) and combine not in _COMBINE:
        raise InvalidArgument(f"combine must be 'sum', 'concat', 'tuple' or a function of the outputs, got {combine!r}")
    children = children_of(layers, named)
    if not children:
        raise InvalidArgument("parallel needs at least one layer; nn.identity is the layer that does nothing")
    how = combine if isinstance(combine, str) else function_name(combine)
    label = label_of("parallel", children, f"combine={how!r}" if isinstance(combine, str) else f"combine={how}")
    return _branches("parallel", label, children, combine if callable(combine) else _COMBINE[combine])


def _branches(what: str, label: str, children: Sequence[Child], combine: Callable[[list], Any]) -> Model:
    names = frozenset(name for name, _ in children)

    def init(key: Tensor, example: Any) -> tuple[Params, Buffers]:
        params, buffers = {}, {}
        combine([init_child(name, layer, key, example, params, buffers) for name, layer in children])
        return params, buffers

    def apply(params: Params, buffers: Buffers, x: Any, mode: Mode = EVALUATION) -> tuple[Any, Buffers]:
        check_dicts(what, names, params, buffers)
        outputs = []
        for name, layer in children:
            y, buffers = apply_child(name, layer, params, buffers, x, mode)
            outputs.append(y)
        return combine(outputs), buffers

    return combination(label, init, apply, children)


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


def _check_outputs(what: str, outputs: list, fits: Callable[[Tensor], Any]) -> None:
    for y in outputs:
        if not isinstance(y, Tensor):
            raise NotATensor(f"{what}: each layer must return a tensor, got {type(y).__name__}")
        if fits(y) != fits(outputs[0]):
            shapes = " and ".join(str(tuple(y.shape)) for y in outputs)
            rule = "one shape" if what == "sum" else "one shape but for axis 1"
            raise ShapeMismatch(f"{what}: the outputs of the layers must have {rule}, got {shapes}")
