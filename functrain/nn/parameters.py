"""How layers get their first parameters: each from its own key, by an initializer, like the example."""

import inspect
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from functrain import initializers, random
from functrain.errors import InvalidArgument, ShapeMismatch
from functrain.initializers import Initializer

KAIMING = initializers.kaiming_uniform()
"""What weights are drawn from unless told otherwise."""


def check_initializer(name: str, initializer: Initializer) -> Initializer:
    """Return an initializer after checking that it can be called."""
    if not callable(initializer):
        raise InvalidArgument(
            f"{name} must be an initializer (key, shape, dtype) -> tensor, such as initializers.zeros(), got "
            f"{initializer!r}"
        )
    return initializer


def check_bias(bias: bool | Initializer) -> Callable[..., Tensor] | None:
    """Return the function (key, shape, dtype, fan_in) that makes a bias: zeros for True, None for False."""
    if bias is False:
        return None
    initializer = initializers.zeros() if bias is True else check_initializer("bias", bias)
    if "fan_in" in inspect.signature(initializer).parameters:
        return lambda key, shape, dtype, fan_in: initializer(key, shape, dtype, fan_in=fan_in)
    return lambda key, shape, dtype, fan_in: initializer(key, shape, dtype)


def draw(
    initializer: Callable[..., Tensor], key: Tensor, name: str, shape: Sequence[int], like: Tensor, *args
) -> Tensor:
    """Return one parameter from the key of its name, with the dtype of the example and on its device."""
    dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
    value = initializer(random.fold_in(key, name), tuple(shape), dtype, *args)
    if tuple(value.shape) != tuple(shape):
        raise ShapeMismatch(f"{name}: the initializer must return shape {tuple(shape)}, got {tuple(value.shape)}")
    return value.to(like.device)


def affine(
    key: Tensor, like: Tensor, shape: Sequence[int], weight: Initializer, bias: Callable[..., Tensor] | None
) -> dict[str, Tensor]:
    """Return a weight of this shape and, unless `bias` is None, a bias for its first axis."""
    params = {"weight": draw(weight, key, "weight", shape, like)}
    if bias is not None:
        params["bias"] = draw(bias, key, "bias", shape[:1], like, math.prod(shape[1:]))
    return params
