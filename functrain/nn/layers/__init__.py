"""Layers: each is a formula, made a `Model` by `functrain.nn.layer`; activations are plain functions."""

from functrain.nn.layers.activations import (
    elu,
    flatten,
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
from functrain.nn.layers.batch_normalization import batch_norm
from functrain.nn.layers.convolution import conv
from functrain.nn.layers.layer_normalization import layer_norm
from functrain.nn.layers.linear import dense
from functrain.nn.layers.lookup import embedding
from functrain.nn.layers.noise import dropout
from functrain.nn.layers.pooling import avg_pool, global_avg_pool, max_pool

__all__ = [
    "avg_pool",
    "batch_norm",
    "conv",
    "dense",
    "dropout",
    "elu",
    "embedding",
    "flatten",
    "gelu",
    "gelu_tanh",
    "global_avg_pool",
    "hard_sigmoid",
    "hard_swish",
    "layer_norm",
    "leaky_relu",
    "max_pool",
    "mish",
    "relu",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "tanh",
]
