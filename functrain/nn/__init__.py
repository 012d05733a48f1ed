"""Models as pairs of pure functions: layers, combinators, and the way to and from `torch.nn`.

>>> import torch
>>> from functrain import random
>>> model = serial(dense(50), relu, dropout(0.1), dense(10))
>>> params, buffers = model.init(random.key(0), torch.zeros(1, 784))
>>> y, buffers = model.apply(params, buffers, torch.zeros(64, 784))
>>> y, buffers = model.apply(params, buffers, torch.zeros(64, 784), training(random.key(1)))
"""

from functrain.nn import takes
from functrain.nn.capturing import capture
from functrain.nn.combinators import Children, composite, identity, named, parallel, repeat, residual, serial
from functrain.nn.formula import layer, stateful_layer
from functrain.nn.interop import from_module, from_state_dict, to_module, to_state_dict
from functrain.nn.layers import (
    avg_pool,
    batch_norm,
    conv,
    dense,
    dropout,
    elu,
    embedding,
    flatten,
    gelu,
    gelu_tanh,
    global_avg_pool,
    hard_sigmoid,
    hard_swish,
    layer_norm,
    leaky_relu,
    max_pool,
    mish,
    relu,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from functrain.nn.mode import Mode, enter, evaluation, layer_key, training
from functrain.nn.model import Buffers, Model, Params
from functrain.nn.summarizing import LayerSummary, Summary, summary
from functrain.nn.surgery import freeze, lora, merge

__all__ = [
    "Buffers",
    "Children",
    "LayerSummary",
    "Mode",
    "Model",
    "Params",
    "Summary",
    "avg_pool",
    "batch_norm",
    "capture",
    "composite",
    "conv",
    "dense",
    "dropout",
    "elu",
    "embedding",
    "enter",
    "evaluation",
    "flatten",
    "freeze",
    "from_module",
    "from_state_dict",
    "gelu",
    "gelu_tanh",
    "global_avg_pool",
    "hard_sigmoid",
    "hard_swish",
    "identity",
    "layer",
    "layer_key",
    "layer_norm",
    "leaky_relu",
    "lora",
    "max_pool",
    "merge",
    "mish",
    "named",
    "parallel",
    "relu",
    "repeat",
    "residual",
    "selu",
    "serial",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "stateful_layer",
    "summary",
    "takes",
    "tanh",
    "to_module",
    "to_state_dict",
    "training",
]


def __dir__() -> list[str]:
    return __all__
