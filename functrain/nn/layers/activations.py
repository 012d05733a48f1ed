"""Activations: plain functions of a tensor, which are layers as they are: `serial(dense(50), relu, dense(10))`.

Each is the function of that name in `torch.nn.functional` with its default options. For others wrap it:

>>> from functools import partial
>>> from functrain import nn
>>> nn.serial(nn.dense(3), partial(F.leaky_relu, negative_slope=0.2))
serial(dense(3), leaky_relu)
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def relu(x: Tensor) -> Tensor:
    """Return max(x, 0).

    >>> relu(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    return torch.relu(x)


def leaky_relu(x: Tensor) -> Tensor:
    """Return x where positive, 0.01 x elsewhere.

    >>> leaky_relu(torch.tensor([-1.0, 2.0]))
    tensor([-0.0100,  2.0000])
    """
    return F.leaky_relu(x)


def elu(x: Tensor) -> Tensor:
    """Return x where positive, exp(x) - 1 elsewhere.

    Reference: Clevert et al., 2015, https://arxiv.org/abs/1511.07289.

    >>> elu(torch.tensor([-1.0, 2.0]))
    tensor([-0.6321,  2.0000])
    """
    return F.elu(x)


def selu(x: Tensor) -> Tensor:
    """Return ELU, scaled so that activations keep mean 0 and variance 1.

    Reference: Klambauer et al., 2017, https://arxiv.org/abs/1706.02515.

    >>> selu(torch.tensor([-1.0, 2.0]))
    tensor([-1.1113,  2.1014])
    """
    return torch.selu(x)


def gelu(x: Tensor) -> Tensor:
    """Return x times the standard normal distribution function of x.

    Reference: Hendrycks and Gimpel, 2016, https://arxiv.org/abs/1606.08415.

    >>> gelu(torch.tensor([-1.0, 2.0]))
    tensor([-0.1587,  1.9545])
    """
    return F.gelu(x)


def gelu_tanh(x: Tensor) -> Tensor:
    """Return GELU by its approximation with tanh, as in GPT-2.

    >>> gelu_tanh(torch.tensor([-1.0, 2.0]))
    tensor([-0.1588,  1.9546])
    """
    return F.gelu(x, approximate="tanh")


def silu(x: Tensor) -> Tensor:
    """Return x * sigmoid(x), also called swish.

    >>> silu(torch.tensor([-1.0, 2.0]))
    tensor([-0.2689,  1.7616])
    """
    return F.silu(x)


def mish(x: Tensor) -> Tensor:
    """Return x * tanh(softplus(x)).

    Reference: Misra, 2019, https://arxiv.org/abs/1908.08681.

    >>> mish(torch.tensor([-1.0, 2.0]))
    tensor([-0.3034,  1.9440])
    """
    return F.mish(x)


def softplus(x: Tensor) -> Tensor:
    """Return log(1 + exp(x)).

    >>> softplus(torch.tensor([-1.0, 2.0]))
    tensor([0.3133, 2.1269])
    """
    return F.softplus(x)


def sigmoid(x: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-x)).

    >>> sigmoid(torch.tensor([0.0]))
    tensor([0.5000])
    """
    return torch.sigmoid(x)


def tanh(x: Tensor) -> Tensor:
    """Return the hyperbolic tangent.

    >>> tanh(torch.tensor([0.0]))
    tensor([0.])
    """
    return torch.tanh(x)


def hard_sigmoid(x: Tensor) -> Tensor:
    """Return x / 6 + 1/2, cut to [0, 1].

    >>> hard_sigmoid(torch.tensor([-6.0, 0.0]))
    tensor([0.0000, 0.5000])
    """
    return F.hardsigmoid(x)


def hard_swish(x: Tensor) -> Tensor:
    """Return x * hard_sigmoid(x).

    >>> hard_swish(torch.tensor([3.0]))
    tensor([3.])
    """
    return F.hardswish(x)


def softmax(x: Tensor) -> Tensor:
    """Return exp(x) divided by its sum, over the last axis. A loss takes the logits before it.

    >>> softmax(torch.zeros(1, 2))
    tensor([[0.5000, 0.5000]])
    """
    return torch.softmax(x, dim=-1)


def flatten(x: Tensor) -> Tensor:
    """Return the input with one axis made of all but the first: (n, ...) -> (n, features).

    >>> flatten(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 12])
    """
    return x.flatten(1)
