"""Layers after one another."""

from typing import Any

import attrs
from torch import Tensor

from functrain import arguments
from functrain.nn.combinators.children import (
    apply_child,
    check_dicts,
    check_name,
    children_of,
    combination,
    init_child,
    label_of,
    rename,
)
from functrain.nn.functions import as_model
from functrain.nn.mode import EVALUATION, Mode
from functrain.nn.model import Buffers, Model, Params


def serial(*layers: Any, **named: Any) -> Model:
    """Return the composition of layers: the output of each is the input of the next. Without any it is the identity.

    Args:
        layers: models and functions of a tensor, whose names are their positions unless `named` says otherwise.
        named: further ones, which follow those, by name.

    Raises:
        InvalidArgument: something is no layer.
        DuplicateName: two layers have one name.

    See also: `parallel`, `residual`, `repeat`, `composite`.

    >>> import torch
    >>> from functrain import nn, random
    >>> model = serial(nn.flatten, nn.dense(10), torch.relu)
    >>> params, buffers = model.init(random.key(0), torch.zeros(1, 28, 28))
    >>> params["1"]["weight"].shape
    torch.Size([10, 784])
    >>> y, buffers = model.apply(params, buffers, torch.zeros(64, 28, 28))
    >>> y.shape
    torch.Size([64, 10])
    """
    children = children_of(layers, named)
    label, names = label_of("serial", children), frozenset(name for name, _ in children)

    def init(key: Tensor, example: Any) -> tuple[Params, Buffers]:
        params, buffers, x = {}, {}, example
        for name, layer in children:
            x = init_child(name, layer, key, x, params, buffers)
        return params, buffers

    def apply(params: Params, buffers: Buffers, x: Any, mode: Mode = EVALUATION) -> tuple[Any, Buffers]:
        check_dicts("serial", names, params, buffers)
        for name, layer in children:
            x, buffers = apply_child(name, layer, params, buffers, x, mode)
        return x, buffers

    return combination(label, init, apply, children)


def repeat(count: int, layer: Any) -> Model:
    """Return `count` copies of a layer after one another, each with parameters of its own.

    Args:
        count: how many, at least 0.
        layer: a layer whose output fits its input.

    Raises:
        InvalidArgument: count is no such number, or the layer is none.

    >>> import torch
    >>> from functrain import nn, random
    >>> params, _ = repeat(3, nn.dense(2)).init(random.key(0), torch.zeros(1, 2))
    >>> list(params)
    ['0', '1', '2']
    """
    arguments.whole("count", count, minimum=0)
    copies = serial(*[rename(None, as_model("layer", layer))] * count)
    return attrs.evolve(copies, label=f"repeat({count}, {layer})")


def named(name: str, layer: Any) -> Model:
    """Return the layer with a name of its own, by which a combinator calls it instead of by its position.

    Args:
        name: not empty and without a dot, which separates the names of a path.
        layer: any layer.

    Raises:
        InvalidArgument: the name is none, or the layer is none.

    >>> import torch
    >>> serial(named("double", lambda x: 2 * x), named("half", lambda x: x / 2))
    serial(double=lambda, half=lambda)
    """
    check_name(name)
    return rename(name, as_model(f"layer {name}", layer))
