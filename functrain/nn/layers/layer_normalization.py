"""Layer norm."""

from typing import Any

import torch.nn.functional as F

from functrain import arguments
from functrain.errors import ShapeMismatch
from functrain.nn.formula import layer
from functrain.nn.layers.batch_normalization import check_eps
from functrain.nn.model import Model
from functrain.nn.takes import floating


def layer_norm(axes: int = 1, eps: float = 1e-5, affine: bool = True, bias: bool = True) -> Model:
    """Return the layer that normalises over the last axes to mean 0 and variance 1, as `torch.nn.LayerNorm`.

    Args:
        axes: how many axes at the end are normalised together; their lengths come from the example.
        eps: what is added to the variance, positive.
        affine: whether a "weight" of the shape of these axes, beginning at one, multiplies the result.
        bias: whether, with `affine`, a "bias" of that shape, beginning at zero, is added.

    Raises:
        InvalidArgument: an option is none of these.
        ShapeMismatch, DtypeMismatch, DeviceMismatch: when initialised or applied, the input does not fit.
        TreeMismatch: when applied, the parameters are of another model.

    Reference: Ba et al., Layer normalization, 2016, https://arxiv.org/abs/1607.06450.

    >>> import torch
    >>> from functrain import random
    >>> norm = layer_norm()
    >>> x = torch.tensor([[1.0, 3.0]])
    >>> norm.apply(*norm.init(random.key(0), x), x)[0]
    tensor([[-1.0000,  1.0000]])
    """
    arguments.whole("axes", axes)
    check_eps(eps)
    names = ("weight", "bias")[: 1 + bool(bias)] if affine else ()

    def params(x):
        begin = {"weight": x.new_ones(x.shape[-axes:]), "bias": x.new_zeros(x.shape[-axes:])}
        return {name: begin[name] for name in names}

    def apply(p, x):
        shape = p["weight"].shape if affine else x.shape[-axes:]
        return F.layer_norm(x, shape, p.get("weight"), p.get("bias"), eps)

    def takes(label, x, params):
        _last_axes(label, x, x.shape[-axes:] if not params else params["weight"].shape, axes)

    return layer("layer_norm", params, apply, takes=takes)


def _last_axes(label: str, x: Any, shape: Any, axes: int) -> None:
    floating(label, x)
    if x.dim() < axes:
        raise ShapeMismatch(f"{label}: the input must have at least {axes} axes, got shape {tuple(x.shape)}")
    if x.shape[-axes:] != shape:
        raise ShapeMismatch(
            f"{label}: the input must be (..., {', '.join(map(str, shape))}), with the axes that it was initialised "
            f"for last, got shape {tuple(x.shape)}"
        )
