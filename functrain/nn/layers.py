"""Layers without structure of their own: dense, embedding, dropout, flatten."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from functrain import initializers, random, schedule, tree
from functrain.dispatch_state import is_plain
from functrain.errors import DtypeMismatch, InvalidArgument, LabelOutOfRange, NotATensor, ShapeMismatch
from functrain.initializers import Initializer
from functrain.nn.combinators import lam
from functrain.nn.misfit import FAILURES, check_alike, check_device, check_floating, check_present
from functrain.nn.model import EVALUATION, Buffers, Mode, Model, Params, layer_key
from functrain.nn.options import whole
from functrain.nn.parameters import KAIMING, affine, check_bias, check_initializer, draw
from functrain.schedule import Hyper

flatten = lam(lambda x: x.flatten(1))
"""The layer that makes one axis of all but the first: (n, ...) -> (n, features)."""


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
    >>> layer = dense(10)
    >>> params, buffers = layer.init(random.key(0), torch.zeros(1, 784))
    >>> params["weight"].shape, params["bias"].shape
    (torch.Size([10, 784]), torch.Size([10]))
    >>> layer.apply(params, buffers, torch.zeros(64, 784))[0].shape
    torch.Size([64, 10])
    """
    what = f"dense({whole('out', out)})"
    weight, make_bias = check_initializer("weight", weight), check_bias(bias)
    has_bias = make_bias is not None
    names = ("weight", "bias") if has_bias else ("weight",)

    def init(key: Tensor, example: Any) -> tuple[Params, Buffers]:
        check_floating(what, example)
        if example.dim() == 0 or example.shape[-1] == 0:
            raise ShapeMismatch(f"{what}: the input must be (..., features), got shape {tuple(example.shape)}")
        return affine(key, example, (out, example.shape[-1]), weight, make_bias), {}

    def apply(params: Params, buffers: Buffers, x: Tensor, mode: Mode = EVALUATION) -> tuple[Tensor, Buffers]:
        try:
            return F.linear(x, params["weight"], params["bias"] if has_bias else None), buffers
        except FAILURES:
            check_present(what, params, names)
            check_floating(what, x)
            _check_features(what, x, params["weight"])
            check_alike(what, x, params["weight"])
            raise

    return Model(init, apply)


def _check_features(what: str, x: Tensor, weight: Tensor) -> None:
    features = weight.shape[-1]
    if x.dim() == 0 or x.shape[-1] != features:
        hint = "; put nn.flatten before it" if x.dim() > 2 and x[0].numel() == features else ""
        raise ShapeMismatch(
            f"{what}: the input must be (..., {features}), with the features that it was initialised for last, got "
            f"shape {tuple(x.shape)}{hint}"
        )


def embedding(entries: int, out: int, weight: Initializer | None = None) -> Model:
    """Return the layer that looks up a row of its weight for each index, as `torch.nn.Embedding`.

    Its input is integers of any shape, its output has one more axis, of length `out`. Its parameter is "weight",
    (entries, out), in PyTorch's default dtype.

    Args:
        entries: the number of rows; indices are from 0 to entries - 1.
        out: the length of a row.
        weight: the initializer of the weight; standard normal when None.

    Raises:
        InvalidArgument: an option is none of these.
        LabelOutOfRange: when applied, an index is no row. On an accelerator its own assertion reports it instead.
        DtypeMismatch, DeviceMismatch: when initialised or applied, the input does not fit.
        TreeMismatch: when applied, the parameters are of another model.

    >>> import torch
    >>> layer = embedding(65, 8)
    >>> tokens = torch.tensor([[0, 64, 1]])
    >>> params, buffers = layer.init(random.key(0), tokens)
    >>> layer.apply(params, buffers, tokens)[0].shape
    torch.Size([1, 3, 8])
    """
    what = f"embedding({whole('entries', entries)}, {whole('out', out)})"
    make = initializers.normal() if weight is None else check_initializer("weight", weight)

    def init(key: Tensor, example: Any) -> tuple[Params, Buffers]:
        _check_indices(what, example)
        return {"weight": draw(make, key, "weight", (entries, out), example)}, {}

    def apply(params: Params, buffers: Buffers, x: Tensor, mode: Mode = EVALUATION) -> tuple[Tensor, Buffers]:
        try:
            return F.embedding(x, params["weight"]), buffers
        except FAILURES:
            check_present(what, params, ("weight",))
            _check_indices(what, x)
            check_device(what, x, params["weight"])
            _check_range(what, x, params["weight"].shape[0])
            raise

    return Model(init, apply)


def _check_indices(what: str, x: Any) -> None:
    if not isinstance(x, Tensor):
        raise NotATensor(f"{what}: the input must be a tensor, got {type(x).__name__}; use torch.as_tensor")
    if str(x.dtype) not in ("torch.int64", "torch.int32"):
        raise DtypeMismatch(f"{what}: the input must be int64 or int32 indices, got {tree.describe(x)}; use x.long()")


def _check_range(what: str, x: Tensor, entries: int) -> None:
    if not is_plain() or x.numel() == 0:
        return
    low, high = (int(bound) for bound in x.aminmax())
    if low < 0 or high >= entries:
        raise LabelOutOfRange(
            f"{what}: indices must be from 0 to {entries - 1}, got indices from {low} to {high}; take more entries, or "
            "number what is looked up from 0"
        )


def dropout(rate: Hyper = 0.5) -> Model:
    """Return the layer that, in training, sets each element to zero with probability `rate`.

    The probability of keeping, 1 - rate, is rounded to a multiple of 2**-16 (from 2**-16 to 1), and what is kept is
    divided by that very number, so that the expected output is the input; evaluation returns the input. The draws,
    `random.dropout_mask`, come from the layer's key, `layer_key(mode)`.

    Args:
        rate: a number of at least 0 and below 1, or a schedule of it.

    Raises:
        InvalidArgument: the rate is outside; a schedule's is seen when it is applied with a plain number.
        InvalidKey: when applied in training, the mode has no key.

    Reference: Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, JMLR 2014.

    >>> import torch
    >>> from functrain import nn
    >>> y, _ = dropout(0.5).apply({}, {}, torch.ones(1000), nn.training(random.key(0)))
    >>> y.unique()
    tensor([0., 2.])
    """
    schedule.check_hyper("rate", rate, minimum=0, below=1)

    def init(key: Tensor, example: Any) -> tuple[Params, Buffers]:
        check_floating("dropout", example)
        return {}, {}

    def apply(params: Params, buffers: Buffers, x: Tensor, mode: Mode = EVALUATION) -> tuple[Tensor, Buffers]:
        if not mode.train:
            return x, buffers
        now = schedule.value(rate, mode.progress)
        if not isinstance(now, Tensor):
            if not 0 <= now < 1:
                raise InvalidArgument(f"dropout: rate must be at least 0 and below 1, got {now!r} from its schedule")
            if now == 0:
                return x, buffers
        # In float32 for shorter dtypes, where the rounded factor would be off by a constant part.
        wide = torch.promote_types(x.dtype, torch.float32)
        return (x * random.dropout_mask(layer_key(mode), now, tuple(x.shape), wide)).to(x.dtype), buffers

    return Model(init, apply, {"rate": rate})
