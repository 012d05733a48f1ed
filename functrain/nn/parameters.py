"""How layers get their first parameters: declared by shape and initializer, each drawn from the key of its name."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from functrain import arguments, initializers, random
from functrain.errors import NotATensor, ShapeMismatch
from functrain.initializers import Initializer

KAIMING = initializers.kaiming_uniform()
"""What weights are drawn from by default."""

Declaration = tuple[Sequence[int], Initializer]
"""The shape of a parameter and the initializer that draws it, (key, shape, dtype) -> tensor."""


def check_initializer(name: str, initializer: Any) -> Initializer:
    """Return an initializer after checking that it can be called."""
    return arguments.function(
        name, initializer, "(key, shape, dtype) -> tensor, an initializer such as initializers.zeros()"
    )


def check_bias(bias: Any) -> Initializer | None:
    """Return the initializer of a bias: zeros for True, None for False."""
    if bias is False:
        return None
    return initializers.zeros() if bias is True else check_initializer("bias", bias)


def weight_and_bias(shape: Sequence[int], weight: Initializer, bias: Initializer | None) -> dict[str, Declaration]:
    """Return the declarations of a weight and, unless `bias` is None, of a bias for its first axis.

    An initializer of the bias that takes `fan_in` gets the weight's.

    >>> list(weight_and_bias((10, 784), KAIMING, None))
    ['weight']
    """
    if bias is None:
        return {"weight": (shape, weight)}
    if "fan_in" in inspect.signature(bias).parameters:
        bias = partial(bias, fan_in=math.prod(shape[1:]))
    return {"weight": (shape, weight), "bias": (shape[:1], bias)}


def draw_parameters(
    label: str, declared: Mapping[str, Tensor | Declaration], key: Tensor, like: Any
) -> dict[str, Tensor]:
    """Return the parameters that a layer declared, each from the key of its name, on the example's device.

    What is declared by shape has the dtype of the example, or the default one where that is no floating-point dtype.
    """
    return {name: _draw(f"{label}: {name}", what, key, name, like) for name, what in declared.items()}


def _draw(where: str, what: Any, key: Tensor, name: str, like: Any) -> Tensor:
    if isinstance(what, Tensor):
        return what.detach()
    if not (isinstance(what, tuple) and len(what) == 2 and callable(what[1])):
        raise NotATensor(f"{where} must be a tensor or a pair (shape, initializer), got {type(what).__name__}")
    shape, initializer = tuple(what[0]), cast(Initializer, what[1])
    tensor = isinstance(like, Tensor)
    dtype = like.dtype if tensor and like.is_floating_point() else torch.get_default_dtype()
    value = initializer(random.fold_in(key, name), shape, dtype)
    if tuple(value.shape) != shape:
        raise ShapeMismatch(f"{where}: the initializer must return shape {shape}, got {tuple(value.shape)}")
    return value.to(like.device) if tensor else value


Declare = Callable[[Any], Mapping[str, Tensor | Declaration]]
"""(example) -> by name, a tensor or a declaration."""
