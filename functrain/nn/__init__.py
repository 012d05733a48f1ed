"""Models as pairs of pure functions: layers, combinators, and the way to and from `torch.nn`.

>>> import torch
>>> from functrain import random
>>> model = serial(dense(50), relu, dropout(0.1), dense(10))
>>> params, buffers = model.init(random.key(0), torch.zeros(1, 784))
>>> y, buffers = model.apply(params, buffers, torch.zeros(64, 784))
>>> y, buffers = model.apply(params, buffers, torch.zeros(64, 784), training(random.key(1)))
"""

from functrain.nn.activations import (
    elu,
    gelu,
    gelu_tanh,
    hard_sigmoid,
    hard_swish,
    leaky_relu,
    mish,
    relu,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from functrain.nn.capturing import capture
from functrain.nn.combinators import identity, lam, named, parallel, repeat, residual, serial
from functrain.nn.convolution import avg_pool, conv, global_avg_pool, max_pool
from functrain.nn.interop import from_module, to_module
from functrain.nn.layers import dense, dropout, embedding, flatten
from functrain.nn.model import Buffers, Mode, Model, Params, enter, evaluation, layer_key, training
from functrain.nn.normalization import batch_norm, layer_norm
from functrain.nn.state_dict import from_state_dict, to_state_dict
from functrain.nn.summarizing import LayerSummary, Summary, summary
from functrain.nn.surgery import freeze, load_part, lora, merged

__all__ = [
    "Buffers",
    "LayerSummary",
    "Mode",
    "Model",
    "Params",
    "Summary",
    "avg_pool",
    "batch_norm",
    "capture",
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
    "lam",
    "layer_key",
    "layer_norm",
    "leaky_relu",
    "load_part",
    "lora",
    "max_pool",
    "merged",
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
    "summary",
    "tanh",
    "to_module",
    "to_state_dict",
    "training",
]
