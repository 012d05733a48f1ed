"""LoRA: a model adapted by factors of low rank, which alone are trained."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from torch import Tensor

from functrain import arguments, initializers, random, tree
from functrain.errors import InvalidArgument, TreeMismatch
from functrain.nn.functions import as_model
from functrain.nn.mode import EVALUATION, Mode
from functrain.nn.model import Buffers, Model, Params
from functrain.nn.surgery.merging import MadeFrom, chooser, frozen_entry, join, split, with_frozen, without_frozen

DOWN, UP = "lora_down", "lora_up"


def lora(
    model: Model,
    rank: int,
    where: str | Sequence[str] | Callable[[str], bool] = "*weight",
    alpha: float | None = None,
    train: str | Sequence[str] | Callable[[str], bool] = (),
) -> Model:
    """Return the model adapted by LoRA: each chosen weight W becomes W + alpha / rank * up @ down, and W is frozen.

    The factors are "lora_up" (out, rank), which begins at zero, and "lora_down" (rank, in), drawn by Kaiming's uniform
    distribution; so the adapted model begins as the model. They stand in the place of the weight. All other parameters
    are frozen too, but those of `train`. A weight of more axes (a convolution's) is taken as (out, all others).

    Args:
        model: any model.
        rank: the rank of each product, at least 1.
        where: which weights: a pattern of dotted paths (`*` stands for any characters, dots too), several, or a
            predicate of a path. Those with less than two axes are left out.
        alpha: the scale of the products; the rank itself when None, so that the factor is 1.
        train: which parameters to train as they are, such as "head.*".

    Raises:
        InvalidArgument: an option is none of these; at `init`, no weight is chosen.
        TreeMismatch: when applied, factors are missing.

    See also: `merge`, which multiplies the factors and adds them to the weights.

    Reference: Hu et al., LoRA: low-rank adaptation of large language models, 2021, https://arxiv.org/abs/2106.09685.

    >>> import torch
    >>> from functrain import nn
    >>> model = lora(nn.serial(body=nn.dense(4), head=nn.dense(2)), rank=1, where="body.*", train="head.*")
    >>> params, buffers = model.init(random.key(0), torch.zeros(1, 3))
    >>> tree.paths(params)
    ['body.weight.lora_down', 'body.weight.lora_up', 'head.weight', 'head.bias']
    """
    model = as_model("model", model)
    arguments.whole("rank", rank)
    if alpha is not None and not (type(alpha) in (int, float) and 0 < alpha < math.inf):
        raise InvalidArgument(f"alpha must be a positive number or None, got {alpha!r}")
    is_adapted, is_trained = functools.cache(chooser("where", where)), chooser("train", train)
    scale, entry = 1.0 if alpha is None else alpha / rank, frozen_entry(model)

    def init(key: Tensor, example: Any) -> tuple[Params, Buffers]:
        params, buffers = model.init(key, example)
        trained, frozen = split(params, lambda path: is_trained(path) and not is_adapted(path))
        factors = {path: w for path, w in tree.leaves_with_path(frozen) if is_adapted(path) and w.dim() > 1}
        if not factors:
            shown = ", ".join(tree.paths(params)[:10])
            raise InvalidArgument(
                f"lora: where matches no weight of two axes or more; the paths are {shown or 'none':.600} (parameters "
                "with requires_grad=False are buffers and not adapted; lora freezes by itself: leave them as they were)"
            )
        chosen, _ = split(frozen, factors.__contains__)
        return join(_factors(chosen, key, rank), trained), with_frozen(entry, buffers, frozen)

    def back(params: Params, buffers: Buffers) -> tuple[Params, Buffers]:
        frozen, rest = without_frozen(entry, buffers)
        return _adapt(frozen, params, scale, is_adapted), rest

    def apply(params: Params, buffers: Buffers, x: Any, mode: Mode = EVALUATION) -> tuple[Any, Buffers]:
        frozen, rest = without_frozen(entry, buffers)
        y, after = model.apply(_adapt(frozen, params, scale, is_adapted), rest, x, mode)
        return y, buffers if after is rest else with_frozen(entry, after, frozen)

    apply.made_from = MadeFrom(model, back)  # pyright: ignore
    return attrs.evolve(model, init=init, apply=apply)


def _factors(weights: Params, key: Tensor, rank: int) -> Params:
    def drawn(path: str, weight: Tensor) -> Params:
        out, *others = weight.flatten(1).shape
        down = initializers.kaiming_uniform()(random.fold_in(key, path, DOWN), (rank, *others), weight.dtype)
        return {DOWN: down.to(weight.device), UP: weight.new_zeros(out, rank)}

    return tree.map_with_path(drawn, weights)


def _adapt(frozen: Params, params: Params, scale: float, is_adapted: Callable[[str], bool], prefix: str = "") -> Params:
    """Return frozen parameters with the products of factors added, and with those that are trained as they are."""
    made = {}
    for name in {**frozen, **params}:
        path, own, factors = prefix + name, frozen.get(name), params.get(name)
        if isinstance(own, Tensor) and own.dim() > 1 and is_adapted(path):
            if not isinstance(factors, dict) or set(factors) != {DOWN, UP}:
                raise TreeMismatch(
                    f"lora: params must hold {path}.{DOWN} and {path}.{UP}, got "
                    f"{'nothing' if factors is None else tree.describe(factors)}; pass what this model's init returned"
                )
            product = factors[UP] @ factors[DOWN]
            made[name] = own + (scale * product).reshape(own.shape)
        elif own is None or (factors is None and isinstance(own, Tensor)):
            made[name] = factors if own is None else own
        elif isinstance(own, Tensor) or not isinstance(factors, dict | None):
            raise TreeMismatch(f"lora: params have {path}, which is frozen; pass what this model's init returned")
        else:
            made[name] = _adapt(own, factors or {}, scale, is_adapted, f"{path}.")
    return made
