"""`to_module`: a Model with its values as a `torch.nn.Module`, for all that takes one."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from functrain import random, tree
from functrain.errors import InvalidArgument
from functrain.nn.functions import as_model
from functrain.nn.interop.keeping.copying import fresh
from functrain.nn.interop.keeping.leaves import BUFFER, PARAMETER, gather
from functrain.nn.interop.keeping.original import Kept, Original
from functrain.nn.mode import EVALUATION, training
from functrain.nn.model import Buffers, Model, Params
from functrain.nn.surgery.merging import merge, origin


def to_module(model: Model, params: Params, buffers: Buffers) -> torch.nn.Module:
    """Return a model with its values as a `torch.nn.Module`, in evaluation.

    Of `from_module` it is the module itself, a new one of its class, with these values (and with its own `forward`,
    whatever `method` and `out` were); `freeze` and `lora` are merged back first. Any other model becomes a module whose
    `forward` applies it. Its `state_dict` has the names of the parameters and buffers. So it can be called, saved,
    exported (`torch.export`, ONNX) and trained by others' loops; in training it draws its keys from PyTorch's global
    generator, and keeps new values of its buffers, as modules do.

    Args:
        model: any model.
        params: its parameters.
        buffers: its buffers.

    Raises:
        TreeMismatch: an entry of params or buffers is missing, or is one that the module does not have.
        InvalidArgument: an entry is no tensor, or has a name that every module uses for something else.

    See also: `from_module`, the other way.

    >>> from functrain import nn
    >>> model = nn.serial(nn.dense(4), nn.relu, nn.dense(2))
    >>> params, buffers = model.init(random.key(0), torch.zeros(1, 3))
    >>> module = to_module(model, params, buffers)
    >>> list(module.state_dict())
    ['0.weight', '0.bias', '2.weight', '2.bias']
    >>> torch.equal(module(torch.ones(1, 3)), model.apply(params, buffers, torch.ones(1, 3))[0])
    True
    """
    model = as_model("model", model)
    params, buffers = merge(model, params, buffers)
    while (source := origin(model)) is not None:
        model = source.model
    module = getattr(model.apply, "original", None)
    if isinstance(module, Original):
        return _same_class(module.kept, params, buffers)
    return ModelModule(model, params, buffers).eval()


def _same_class(kept: Kept, params: Params, buffers: Buffers) -> torch.nn.Module:
    values = [
        value.detach().clone() if kind == BUFFER else torch.nn.Parameter(value.detach().clone(), kind == PARAMETER)
        for kind, value in zip(kept.leaves.kinds, gather(kept.leaves, params, buffers), strict=True)
    ]
    module = fresh(kept.recipe, values, train=True)[0][0]
    return copy.deepcopy(module).eval()  # what is no parameter is shared with the model so far


class ModelModule(torch.nn.Module):
    """A model as a module.

    Args:
        model: the model.
        params: its parameters.
        buffers: its buffers.
    """

    def __init__(self, model: Model, params: Params, buffers: Buffers) -> None:
        super().__init__()
        self._model = model
        self._params, self._buffer_tree = tree.map(lambda _: None, params), tree.map(lambda _: None, buffers)
        _register(self, params, lambda value: torch.nn.Parameter(value.detach().clone()))
        _register(self, buffers, lambda value: value.detach().clone())

    def forward(self, x: Any) -> Any:
        """Apply the model; in training with a new key, and keeping new values of the buffers."""
        params, buffers = _tensors_of(self, self._params), _tensors_of(self, self._buffer_tree)
        mode = EVALUATION
        if self.training:
            mode = training(random.key(int(torch.randint(2**62, ()))))
        y, after = self._model.apply(params, buffers, x, mode)
        if after is not buffers:
            with torch.no_grad():
                tree.map(lambda old, new: old.copy_(new), buffers, after)
        return y


def _register(module: torch.nn.Module, values: Mapping[str, Any], make: Any) -> None:
    for name, value in values.items():
        if name not in module._modules and hasattr(module, name):
            raise InvalidArgument(
                f"to_module: {name!r} is the name of a layer, parameter or buffer, and of something else in every "
                "torch.nn.Module; give the layer another name with nn.named"
            )
        if isinstance(value, Mapping):
            if name not in module._modules:
                module.add_module(name, torch.nn.Module())
            _register(module._modules[name], value, make)  # type: ignore
            continue
        if not isinstance(value, Tensor):
            raise InvalidArgument(f"to_module: {name} must be a tensor, got {type(value).__name__}")
        made = make(value)
        put = module.register_parameter if isinstance(made, torch.nn.Parameter) else module.register_buffer
        put(name, made)


def _tensors_of(module: Any, names: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: getattr(module, name) if inner is None else _tensors_of(module._modules[name], inner)
        for name, inner in names.items()
    }
