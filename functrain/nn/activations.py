"""Activations, ready to use as layers: `serial(dense(50), relu, dense(10))`.

Each is the function of the same name in `torch.nn.functional` with its default options; for others wrap it:

>>> from functools import partial
>>> steep = lam(partial(F.leaky_relu, negative_slope=0.2))
>>> steep.apply({}, {}, torch.tensor([-1.0, 1.0]))
(tensor([-0.2000,  1.0000]), {})
"""

from functools import partial

import torch
import torch.nn.functional as F

from functrain.nn.combinators import lam

relu = lam(torch.relu)
"""max(x, 0)."""

leaky_relu = lam(F.leaky_relu)
"""x where positive, 0.01 x elsewhere."""

elu = lam(F.elu)
"""x where positive, exp(x) - 1 elsewhere. Clevert et al., 2015, https://arxiv.org/abs/1511.07289."""

selu = lam(torch.selu)
"""ELU, scaled so that activations keep mean 0 and variance 1. Klambauer et al., 2017, https://arxiv.org/abs/1706.02515."""

gelu = lam(F.gelu)
"""x times the standard normal distribution function of x. Hendrycks and Gimpel, 2016, https://arxiv.org/abs/1606.08415."""

gelu_tanh = lam(partial(F.gelu, approximate="tanh"))
"""GELU by its approximation with tanh, as in GPT-2."""

silu = lam(F.silu)
"""x * sigmoid(x), also known as swish."""

mish = lam(F.mish)
"""x * tanh(softplus(x)). Misra, 2019, https://arxiv.org/abs/1908.08681."""

softplus = lam(F.softplus)
"""log(1 + exp(x))."""

sigmoid = lam(torch.sigmoid)
"""1 / (1 + exp(-x))."""

tanh = lam(torch.tanh)
"""The hyperbolic tangent."""

hard_sigmoid = lam(F.hardsigmoid)
"""x / 6 + 1/2, cut to [0, 1]."""

hard_swish = lam(F.hardswish)
"""x * hard_sigmoid(x)."""

softmax = lam(partial(torch.softmax, dim=-1))
"""exp(x) divided by its sum, over the last axis. A loss takes the logits before it."""
