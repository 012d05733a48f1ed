"""The door: what may stand where a layer is expected. A `Model` is itself; a plain function of a tensor is a layer.

What is neither is refused in words, and so is, at `init`, a function that is not pure.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functrain import foreign, tree
from functrain.dispatch_state import is_plain
from functrain.errors import HiddenRandomness, InvalidArgument, SideEffect
from functrain.nn.mode import EVALUATION, Mode
from functrain.nn.model import Buffers, Model, Params


def as_model(name: str, candidate: Any) -> Model:
    """Return a layer as a `Model`; `name` says which argument it is.

    Raises:
        InvalidArgument: it is no layer: a class, a `torch.nn.Module`, a factory that was not called, or no function.

    >>> as_model("layer 0", torch.relu)
    relu
    >>> as_model("layer 0", torch.nn.ReLU())
    Traceback (most recent call last):
        ...
    functrain.errors.InvalidArgument: layer 0 is a torch.nn.Module, ReLU(), whose parameters and mode would be out of \
sight: take nn.from_module(module), or the function of torch.nn.functional
    """
    if isinstance(candidate, Model):
        return candidate
    if isinstance(candidate, torch.nn.Module):
        raise InvalidArgument(
            f"{name} is a torch.nn.Module, {candidate!s:.40}, whose parameters and mode would be out of sight: take "
            "nn.from_module(module), or the function of torch.nn.functional"
        )
    if isinstance(candidate, type):
        raise InvalidArgument(
            f"{name} is the class {candidate.__name__}; a layer is a Model or a function of a tensor"
            f"{foreign.way_in(candidate)}"
        )
    if not callable(candidate):
        raise InvalidArgument(f"{name} must be a Model or a function of a tensor, got {foreign.in_words(candidate)}")
    if _is_factory(candidate):
        raise InvalidArgument(
            f"{name} is the function {candidate.__name__}, which makes a layer; call it: {candidate.__name__}(...)"
        )
    return function_layer(candidate)


def _is_factory(candidate: Any) -> bool:
    return getattr(candidate, "__annotations__", {}).get("return") in (Model, "Model", "nn.Model")


def function_layer(f: Callable[[Any], Any]) -> Model:
    """Return the layer that applies a pure function and has no parameters.

    >>> double = function_layer(lambda x: 2 * x)
    >>> double.apply({}, {}, torch.ones(2))
    (tensor([2., 2.]), {})
    """
    label = function_name(f)

    def init(key: Tensor, example: Any) -> tuple[Params, Buffers]:
        if is_plain() and not torch.is_inference_mode_enabled():
            _check_pure(label, f, example)
        return {}, {}

    def apply(params: Params, buffers: Buffers, x: Any, mode: Mode = EVALUATION) -> tuple[Any, Buffers]:
        return f(x), buffers

    return Model(init, apply, label=label)


def function_name(f: Callable) -> str:
    """Return what a function is called, that of the function inside for a `partial`.

    >>> from functools import partial
    >>> function_name(torch.relu), function_name(partial(torch.softmax, dim=-1)), function_name(lambda x: x)
    ('relu', 'softmax', 'lambda')
    """
    inner = getattr(f, "func", f)
    return getattr(inner, "__name__", type(inner).__name__).strip("<>")


def _check_pure(label: str, f: Callable, example: Any) -> None:
    """Raise unless the function, applied to the example, only looks at it."""
    # On a copy, so that a function that writes harms nothing.
    x = tree.map(lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, example)
    tensors = [leaf for leaf in tree.leaves(x) if isinstance(leaf, Tensor)]
    versions, generator = [t._version for t in tensors], torch.get_rng_state()
    with torch.enable_grad():
        y = f(x)
    if isinstance(y, Model):
        raise InvalidArgument(f"the function {label} returned a layer, {y}; call it where the model is made")
    if not torch.equal(generator, torch.get_rng_state()):
        torch.set_rng_state(generator)
        raise HiddenRandomness(
            f"the function {label} draws from PyTorch's global generator; make it an nn.stateful_layer that draws from "
            "nn.layer_key(mode) with functrain.random"
        )
    if versions != [t._version for t in tensors]:
        raise SideEffect(f"the function {label} writes to its input; return a new tensor instead")
    if any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree.leaves(y)):
        raise SideEffect(
            f"the function {label} closes over a tensor that requires gradients, which no optimizer would see; make it "
            "a parameter by nn.layer, or detach it"
        )
