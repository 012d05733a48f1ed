"""Rounding by chance, so that what is lost in a short dtype is right on average."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from functrain import arguments, random, tree
from functrain.optim.context import Context
from functrain.optim.ordering import map_by_path
from functrain.optim.shapes import check_gradients
from functrain.optim.transform import Transform, check_transform

SHORT = {torch.bfloat16: (8, -133), torch.float16: (11, -24)}
"""Short dtypes: how many binary digits they have, and the power of 2 that is their smallest number."""


def round_by_chance(key: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a float32 tensor in a short dtype, each element rounded up or down by chance, so that its mean is x.

    It is the neighbour above with the probability (x - below) / (above - below), and x itself where that has the dtype.
    A gradient goes through as if nothing was rounded.

    Args:
        key: a random key.
        x: float32.
        dtype: bfloat16 or float16.

    >>> x = torch.full((10000,), 1.001953125)  # a quarter of the way from 1 to the next bfloat16
    >>> some = round_by_chance(random.key(0), x, torch.bfloat16)
    >>> some.unique(), bool((some.float().mean() - x[0]).abs() < 1e-4)
    (tensor([1.0000, 1.0078], dtype=torch.bfloat16), True)
    """
    digits, least = SHORT[dtype]
    still = x.detach()
    usable = torch.where(still.isfinite(), still, 0.0)
    power = (torch.frexp(usable).exponent - digits).clamp(min=least)
    # In two factors, of which neither is too small for float32.
    step = torch.ldexp(torch.ldexp(torch.ones_like(usable), power // 2), power - power // 2)
    steps = usable / step
    below = steps.floor()
    chosen = (below + (random.uniform(key, tuple(x.shape)) < steps - below)) * step
    return (x + torch.where(still.isfinite(), chosen - still, 0.0)).to(dtype)  # both sums are exact


def round_stochastically(transform: Transform) -> Transform:
    """Return the transform after which parameters in bfloat16 or float16 are rounded by chance, right on average.

    Rounded to the nearest, a bfloat16 parameter stays where it is whenever an update is less than a 500th of it. The
    transform inside sees gradients and parameters in float32, and its updates are float32; the sum is rounded. It must
    be the outermost one, and needs the step's random key. Parameters in float32 or wider are updated as ever.
    (Zamirai et al., 2020, https://arxiv.org/abs/2010.06192.)

    Args:
        transform: the whole optimizer inside.

    Raises:
        InvalidArgument: the transform is none. In `update`, the context has no key.

    See also: `short_state`, for the state of the optimizer.

    >>> from functrain import optim
    >>> fine, params = round_stochastically(optim.sgd(lr=1.0)), {"w": torch.ones(10000, dtype=torch.bfloat16)}
    >>> grads = {"w": torch.full((10000,), 1e-3, dtype=torch.bfloat16)}
    >>> after, _ = optim.step(fine, grads, fine.init(params), params, optim.Context(key=random.key(0)))
    >>> round(after["w"].float().mean().item(), 4), optim.step(optim.sgd(1.0), grads, ((),), params)[0]["w"][0]
    (0.999, tensor(1., dtype=torch.bfloat16))
    """
    check_transform(transform)

    def update(updates: Any, state: Any, params: Any, context: Context) -> tuple[Any, Any]:
        check_gradients(updates, params)
        wide = tree.map(_wide, params)
        changed, state = transform.update(tree.map(_wide, updates), state, wide, context)
        key = random.fold_in(context.key, "round_stochastically")  # pyright: ignore

        def added(path: str, p: Tensor, before: Tensor, u: Tensor) -> Tensor:
            if p.dtype not in SHORT:
                return u
            # The difference of neighbours is exact in float32, and so is its sum with the parameter.
            return round_by_chance(random.fold_in(key, path), before + u, p.dtype).float() - before

        return map_by_path(added, params, wide, changed), state

    def init(params: Any) -> Any:
        tree.check_tensors(params, "the parameters")
        return transform.init(tree.map(_wide, params))

    return Transform(
        init,
        update,
        transform.hypers,
        made=transform.made,
        needs=(*transform.needs, "key"),
        label=lambda: f"round_stochastically({transform!r})",
        pieces=transform,
    )


@tree.node
class Shortened:
    """The state of `short_state`.

    Attributes:
        inner: the state of the transform inside, its arrays of float32 in the short dtype.
    """

    inner: Any


def short_state(transform: Transform, dtype: torch.dtype = torch.bfloat16) -> Transform:
    """Return the transform that keeps the state of another one in a short dtype, rounded by chance.

    So the means of Adam take half of the memory. Arrays of float32 are shortened, and widened for each update; scalars
    stay. A mean that decays slowly needs chance: rounded to the nearest it would not move. It needs the step's key.

    Args:
        transform: the transform inside; parameters that it keeps, such as those of `lookahead`, lose digits too.
        dtype: torch.bfloat16, or torch.float16, in which the squares of small gradients are 0.

    Raises:
        InvalidArgument: the transform is none, or the dtype is another. In `update`, the context has no key.

    See also: `round_stochastically`, for the parameters.

    >>> from functrain import optim
    >>> small = short_state(optim.adam())
    >>> small.init({"w": torch.zeros(2)}).inner[0]["mean"]
    {'w': tensor([0., 0.], dtype=torch.bfloat16)}
    """
    check_transform(transform)
    arguments.one_of("dtype", dtype, tuple(SHORT))

    def init(params: Any) -> Shortened:
        return Shortened(tree.map(lambda leaf: leaf.to(dtype) if _is_array(leaf) else leaf, transform.init(params)))

    def update(updates: Any, state: Shortened, params: Any, context: Context) -> tuple[Any, Shortened]:
        changed, inner = transform.update(updates, tree.map(_widen, state.inner), params, context)
        return changed, Shortened(map_by_path(partial(_shorten, context.key, dtype), inner, state.inner))

    def _widen(leaf: Tensor) -> Tensor:
        return leaf.float() if leaf.dtype is dtype and leaf.dim() > 0 else leaf

    made = transform.made
    return Transform(
        init,
        update,
        transform.hypers,
        made=None if made is None else lambda state: made(state.inner),
        needs=(*transform.needs, "key"),
        label=lambda: f"short_state({transform!r}, dtype={dtype})",
    )


def _shorten(key: Any, dtype: torch.dtype, path: str, new: Tensor, old: Tensor) -> Tensor:
    if old.dtype is not dtype or new.dtype is dtype:
        return new
    return round_by_chance(random.fold_in(key, "short_state", path), new, dtype)


def _is_array(leaf: Tensor) -> bool:
    return leaf.dtype is torch.float32 and leaf.dim() > 0


def _wide(leaf: Tensor) -> Tensor:
    return leaf.float() if leaf.dtype in SHORT else leaf
