"""Layers that draw inside of one function of PyTorch: dropout and its kin, attention."""

import math
import types
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from functrain import random
from functrain.errors import InvalidArgument
from functrain.nn.interop.rules.draws import uniform
from functrain.nn.interop.rules.running import Running, rule

_SELU_ALPHA = 1.7580993408473766  # SELU's alpha times its scale: what alpha dropout sets elements to is minus this


# Dropout


def keep_mask(run: Running, what: str, x: Tensor, p: float, shape: Any) -> Tensor:
    """Return 1 where an element is kept and 0 where it is dropped, with the dtype of the input."""
    return random.bernoulli(run.key(what), 1 - p, tuple(shape)).to(x.device, x.dtype)


def _result(run: Running, x: Tensor, y: Tensor, inplace: bool, what: str) -> Tensor:
    if not inplace:
        return y
    run.guard(x, what)
    return x.copy_(y)


def drop(run: Running, x: Tensor, p: float, shape: Any, what: str = "dropout") -> Tensor:
    """Return the input with elements set to zero with probability p, and the others divided by 1 - p.

    1 - p is rounded to a multiple of 2**-16, as by `nn.dropout`: a mask of 16 random bits an element.
    """
    if p == 1:
        return x * torch.zeros((), dtype=x.dtype, device=x.device)
    # In float32 for shorter dtypes, where the rounded factor would be off by a constant part.
    wide = torch.float64 if x.dtype in (torch.float64, torch.complex128) else torch.float32
    mask = random.dropout_mask(run.key(what), p, tuple(shape), wide).to(x.device)
    return (x * mask).to(x.dtype)


def _of_features(x: Tensor) -> tuple[int, ...]:
    if x.dim() < 2:
        raise InvalidArgument(f"dropout of whole channels needs a batch and channels, got shape {tuple(x.shape)}")
    return (*x.shape[:2], *[1] * (x.dim() - 2))


def _dropout(features: bool, alpha: bool, inplace: bool | None) -> Callable:
    def answer(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
        bound = dict(zip(("input", "p", "train", "inplace"), args, strict=False)) | kwargs
        x, p = bound["input"], bound.get("p", 0.5)
        write = bound.get("inplace", False) if inplace is None else inplace
        run.check((x,))
        # F.dropout says "training" and trains by default, alpha dropout does not.
        if not bound.get("training", bound.get("train", not alpha)) or p == 0 or x.numel() == 0:
            return x
        if not 0 <= p <= 1:
            raise InvalidArgument(f"dropout probability has to be between 0 and 1, but got {p}")
        shape = _of_features(x) if features else x.shape
        y = _alpha_dropout(run, x, p, shape) if alpha else drop(run, x, p, shape)
        return _result(run, x, y, write, "dropout")

    return answer


def _alpha_dropout(run: Running, x: Tensor, p: float, shape: Any) -> Tensor:
    if p == 1:
        return x * torch.zeros((), dtype=x.dtype, device=x.device)
    keep = keep_mask(run, "alpha_dropout", x, p, shape)
    a = 1 / math.sqrt((_SELU_ALPHA**2 * p + 1) * (1 - p))
    shift = (keep - 1) * (_SELU_ALPHA * a) + _SELU_ALPHA * a * p
    return x * (keep * a) + shift


rule(F.dropout)(_dropout(features=False, alpha=False, inplace=None))
rule(F.alpha_dropout)(_dropout(features=False, alpha=True, inplace=None))
rule(F.feature_alpha_dropout)(_dropout(features=True, alpha=True, inplace=None))
for _name, _features, _alpha in (
    ("dropout", False, False),
    ("feature_dropout", True, False),
    ("alpha_dropout", False, True),
    ("feature_alpha_dropout", True, True),
):
    rule(getattr(torch, _name))(_dropout(_features, _alpha, inplace=False))
    rule(getattr(torch, f"{_name}_"))(_dropout(_features, _alpha, inplace=True))


@rule(torch.native_dropout)
def _native_dropout(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    x, p, train = args
    if train is False or p == 0:
        return x, torch.ones_like(x, dtype=torch.bool)
    keep = keep_mask(run, "native_dropout", x, p, x.shape)
    return x * (keep / (1 - p) if p < 1 else keep), keep.bool()


@rule(F.rrelu, torch.rrelu, torch.rrelu_)
def _rrelu(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    bound = dict(zip(("input", "lower", "upper", "training", "inplace"), args, strict=False)) | kwargs
    if not bound.get("training", False):
        return func(*args, **kwargs)
    x, low, high = bound["input"], bound.get("lower", 1 / 8), bound.get("upper", 1 / 3)
    run.check((x,))
    slope = uniform(run.key("rrelu"), x.shape, x.dtype).to(x.device) * (high - low) + low
    y = torch.where(x <= 0, x * slope, x)
    return _result(run, x, y, func is torch.rrelu_ or bound.get("inplace", False) is True, "rrelu")


# Attention


@rule(F.scaled_dot_product_attention)
def _attention(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    bound = dict(zip(names, args, strict=False)) | kwargs
    p = bound.get("dropout_p", 0.0)
    if not p:
        run.check(args)
        return func(*args, **kwargs)
    return _attention_with_dropout(run, **bound)


def _attention_with_dropout(
    run: Running, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
) -> Tensor:
    if enable_gqa:
        key = key.repeat_interleave(query.size(-3) // key.size(-3), -3)
        value = value.repeat_interleave(query.size(-3) // value.size(-3), -3)
    factor = 1 / math.sqrt(query.size(-1)) if scale is None else scale
    scores = (query * factor) @ key.transpose(-2, -1)
    if is_causal:
        rows, columns = scores.shape[-2:]
        causal = torch.ones(rows, columns, dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~causal, -math.inf)
    if attn_mask is not None:
        is_mask = attn_mask.dtype is torch.bool
        scores = scores.masked_fill(~attn_mask, -math.inf) if is_mask else scores + attn_mask
    weights = torch.softmax(scores, -1)
    if attn_mask is not None:  # PyTorch's gives zeros to a query that may attend to nothing
        weights = weights.masked_fill((scores == -math.inf).all(-1, keepdim=True), 0)
    return drop(run, weights, dropout_p, weights.shape, "attention dropout") @ value


# Functions written in Python that draw inside


_OPENED = (
    F.multi_head_attention_forward,
    F.gumbel_softmax,
    F.dropout1d,
    F.dropout2d,
    F.dropout3d,
    F.fractional_max_pool2d_with_indices,
    F.fractional_max_pool3d_with_indices,
    torch.svd_lowrank,
    torch.pca_lowrank,
    *(f for f in vars(torch.nn.init).values() if isinstance(f, types.FunctionType) and f.__name__.endswith("_")),
)


@rule(*_OPENED)
def _open(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    run.check(args)
    with run:
        return open_body(func)(*args, **kwargs)


# These choose by a flag between two functions, and it is the choosing one that the chosen one hands to the mode.
_CHOSEN = {getattr(F, name): getattr(F, f"_{name}") for name in ("fractional_max_pool2d", "fractional_max_pool3d")}


@rule(*_CHOSEN)
def _open_chosen(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    with run:
        return open_body(_CHOSEN[func])(*args, **kwargs)


class _Overrides:
    """Stands for `torch.overrides` in opened functions: nothing overrides them a second time."""

    has_torch_function = has_torch_function_unary = has_torch_function_variadic = staticmethod(lambda *tensors: False)


class _Torch:
    """Stands for the module `torch` in opened functions."""

    overrides = _Overrides()

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@cache
def open_body(f: Any) -> Callable:
    """Return a Python function of PyTorch whose body runs under the mode, to which its own hands itself whole."""
    names: dict[str, Any] = {
        name: _Overrides.has_torch_function for name in f.__globals__ if name.startswith("has_torch")
    }
    names["torch"] = _Torch()
    made = types.FunctionType(f.__code__, {**f.__globals__, **names}, f.__name__, f.__defaults__, f.__closure__)
    made.__kwdefaults__ = f.__kwdefaults__
    return made
