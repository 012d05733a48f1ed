"""The linear layer."""

import torch.nn.functional as F

from functrain import arguments
from functrain.initializers import Initializer
from functrain.nn.formula import layer
from functrain.nn.model import Model
from functrain.nn.parameters import KAIMING, check_bias, check_initializer, weight_and_bias
from functrain.nn.takes import features


def dense(out: int, bias: bool | Initializer = True, weight: Initializer = KAIMING) -> Model:
    """Return the layer x @ weight.T + bias over the last axis, as `torch.nn.Linear`.

    Its input is (..., in), where `in` comes from the example, its output (..., out). Its parameters are "weight",
    (out, in), and "bias", (out,), in the example's dtype and on its device.

    Args:
        out: the number of outputs.
        bias: True for a bias that begins at zero, False for none, or the initializer of one.
        weight: the initializer of the weight.

    Raises:
        InvalidArgument: an option is none of these.
        ShapeMismatch, DtypeMismatch, DeviceMismatch: when initialised or applied, the input does not fit.
        TreeMismatch: when applied, the parameters are of another model.

    >>> import torch
    >>> from functrain import random
    >>> linear = dense(10)
    >>> params, buffers = linear.init(random.key(0), torch.zeros(1, 784))
    >>> params["weight"].shape, params["bias"].shape
    (torch.Size([10, 784]), torch.Size([10]))
    >>> linear.apply(params, buffers, torch.zeros(64, 784))[0].shape
    torch.Size([64, 10])
    """
    arguments.whole("out", out)
    weight, bias_of = check_initializer("weight", weight), check_bias(bias)

    def params(x):
        return weight_and_bias((out, x.shape[-1]), weight, bias_of)

    def apply(p, x):
        return F.linear(x, p["weight"], p["bias"] if bias_of else None)

    return layer(f"dense({out})", params, apply, takes=features)
