"""The laws of a layer or a model."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import torch
from torch import Tensor

from functrain import nn, random, tree
from functrain.testing.functions import check_jit, check_pure
from functrain.testing.laws import Laws, break_law, hold, same


def check_layer(model: Any, example: Any, *, key: Tensor | None = None, skip: Collection[str] = ()) -> tuple[str, ...]:
    """Check the laws of a layer or a model, and return their names.

    - "init": `init` is pure; its leaves are tensors; another key gives the same structure.
    - "evaluation", "training": `apply` is pure: no parameter, buffer or input is changed, and the same key and step
      give the same bits.
    - "buffers": they keep their structure, shapes and dtypes.
    - "jit": the same eager and compiled, gradients too, in both modes.
    - "rows": in evaluation a row of the result does not depend on the other rows.
    - "padding": in training, rows of zero weight have no influence on the buffers, whatever is in them.
    - "vmap": with many parameters at once, the same as with one after another.

    Args:
        model: the layer or the model, or a function that stands for a layer, such as `torch.relu`.
        example: a batch of at least two rows, a tensor or a tree of tensors.
        key: a random key, for the parameters and the draws; `random.key(0)` by default.
        skip: the names of laws that it need not obey, such as ["rows"] for one that mixes rows on purpose.

    Raises:
        LawBroken: a law does not hold; the message says which, and where.

    >>> scale = nn.layer("scale", lambda x: {"scale": torch.ones(x.shape[-1])}, lambda p, x: x * p["scale"])
    >>> check_layer(scale, torch.randn(4, 3))
    ('init', 'evaluation', 'training', 'buffers', 'jit', 'rows', 'padding', 'vmap')
    """
    key = random.key(0) if key is None else key
    if not isinstance(model, nn.Model):
        model = nn.serial(model)
    laws = layer_laws(model, example, key)
    return hold(repr(model), laws, skip)


def layer_laws(model: nn.Model, example: Any, key: Tensor) -> Laws:
    """Return the laws of `check_layer` by name, to be checked one by one.

    >>> layer_laws(nn.dense(2), torch.ones(2, 3), random.key(0))["rows"]()
    """
    params, buffers = model.init(key, example)
    for_training = random.fold_in(key, "training")

    def evaluate(params: Any, buffers: Any, x: Any) -> Any:
        return model.apply(params, buffers, x)

    def train(params: Any, buffers: Any, x: Any, key: Tensor) -> Any:
        return model.apply(params, buffers, x, nn.training(key))

    evaluating, training = (params, buffers, example), (params, buffers, example, for_training)
    return {
        "init": partial(_init, model, example, key),
        "evaluation": lambda: _quiet(check_pure(evaluate, *evaluating)),
        "training": lambda: _quiet(check_pure(train, *training)),
        "buffers": lambda: _buffers(buffers, evaluate(*evaluating)[1], train(*training)[1]),
        "jit": partial(_jit, evaluate, train, params, buffers, example, for_training),
        "rows": partial(_rows, evaluate, params, buffers, example),
        "padding": partial(_padding, model, params, buffers, example, for_training),
        "vmap": partial(_vmap, model, evaluate, example, key),
    }


def _quiet(_result: Any) -> None:
    return None


def _init(model: nn.Model, example: Any, key: Tensor) -> None:
    made = check_pure(model.init, key, example)
    for path, leaf in tree.leaves_with_path(made):
        if not isinstance(leaf, Tensor):
            break_law(f"parameters and buffers must be tensors, {path} is a {type(leaf).__name__}")
    other = model.init(random.fold_in(key, "other"), example)
    same(_kinds(made), _kinds(other), "parameters and buffers of two keys")


def _kinds(value: Any) -> Any:
    return tree.map(lambda leaf: str(tree.describe(leaf)), value)


def _buffers(before: Any, *after: Any) -> None:
    for later in after:
        same(_kinds(before), _kinds(later), "buffers before and after")


def _jit(evaluate: Callable, train: Callable, params: Any, buffers: Any, example: Any, key: Tensor) -> None:
    # The buffers are closed over: there is no gradient by them.
    check_jit(lambda params, x: evaluate(params, buffers, x), params, example)
    check_jit(lambda params, x: train(params, buffers, x, key), params, example)


def _rows(evaluate: Callable, params: Any, buffers: Any, example: Any) -> None:
    whole, _ = evaluate(params, buffers, example)
    for row in range(len(tree.leaves(example)[0])):
        one, _ = evaluate(params, buffers, tree.map(lambda leaf, row=row: leaf[row : row + 1], example))
        alone = tree.map(lambda leaf, row=row: leaf[row : row + 1], whole)
        same(one, alone, f"row {row} alone and among the others", rtol=1e-4, atol=1e-5)


def _padding(model: nn.Model, params: Any, buffers: Any, example: Any, key: Tensor) -> None:
    rows = len(tree.leaves(example)[0])
    weight = torch.cat([torch.ones(rows), torch.zeros(2)])
    results = [
        model.apply(params, buffers, tree.map(partial(_pad, filler=filler), example), nn.training(key, weight=weight))
        for filler in (0, 3)
    ]
    (_, clean), (_, dirty) = results
    same(clean, dirty, "buffers by what stands in rows of zero weight", rtol=1e-6, atol=1e-7)


def _pad(leaf: Tensor, filler: int) -> Tensor:
    return torch.cat([leaf, torch.full_like(leaf[:1], filler), torch.full_like(leaf[:1], filler)])


def _vmap(model: nn.Model, evaluate: Callable, example: Any, key: Tensor) -> None:
    made = [model.init(random.fold_in(key, number), example) for number in range(3)]
    if not tree.leaves(made[0]):
        return
    params, buffers = tree.stack(made)
    looped = tree.stack([evaluate(*one, example)[0] for one in made])
    mapped = torch.func.vmap(lambda p, b: evaluate(p, b, example)[0])(params, buffers)
    same(looped, mapped, "one set of parameters after another and vmapped", rtol=1e-4, atol=1e-5)
