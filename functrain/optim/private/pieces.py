"""The two halves of DP-SGD: the gradient of each example is made short, and the sum is made noisy."""

from typing import Any

import torch
from torch import Tensor

from functrain import arguments, random, schedule, tree
from functrain.errors import InvalidArgument
from functrain.optim.arithmetic import root
from functrain.optim.context import Context, Examples
from functrain.optim.hypers import nonnegative
from functrain.optim.ordering import map_by_path
from functrain.optim.transform import Transform, stateless
from functrain.schedule import Hyper


def clip_per_example(max_norm: Hyper, lot_size: int | None = None) -> Transform:
    """Return the transform that shortens the gradient of each example before they are added up.

    u = sum over i of g_i min(1, max_norm / |g_i|), divided by the lot size; g_i is the gradient of example i times its
    weight, and |g_i| its norm over all leaves. So no example, whatever its weight, changes the sum by more than
    max_norm. It must be the first piece that sees the gradient, and needs `Context.examples`. Inside of `partition` the
    norm is that of the group. Where an element of g_i is NaN or infinite, u is NaN. (Abadi et al., 2016, https://arxiv.org/abs/1607.00133.)

    Args:
        max_norm: at least 0; the hyperparameter "max_norm".
        lot_size: by what the sum is divided, at least 1: the expected number of examples, where a privacy accountant
            asks for one that does not depend on the data. None for the sum of the batch's weights.

    Raises:
        InvalidArgument: an argument is out of range. In `update`, the context has no examples, or another piece has
            changed the gradient before.

    See also: `add_private_noise`, the other half; `dpsgd`.

    >>> from functrain import optim
    >>> params, rows = {"w": torch.zeros(2)}, torch.tensor([[3.0, 4.0], [0.0, 0.5]])
    >>> mean = {"w": rows.mean(0)}
    >>> context = optim.Context(examples=optim.Examples({"w": rows}, torch.tensor(2.0), mean))
    >>> clip_per_example(1.0).update(mean, (), params, context)[0]
    {'w': tensor([0.3000, 0.6500])}
    """
    hypers = nonnegative(max_norm=max_norm)
    _check_lot_size(lot_size)

    def f(updates: Any, params: Any, context: Context) -> Any:
        examples: Any = context.examples
        _check_first(updates, examples)
        limit = schedule.value(max_norm, context)
        squares = [_squares(leaf) for leaf in tree.leaves(examples.grads)]
        norm = root(sum(squares[1:], squares[0])) if squares else torch.ones(0)
        factor = (limit / torch.where(norm > 0, norm, 1.0)).clamp(max=1.0)
        factor = torch.where(norm.isfinite(), factor, torch.nan)
        size = _size(examples, lot_size)

        def summed(grads: Tensor, update: Tensor) -> Tensor:
            shares = factor.reshape(-1, *[1] * (grads.dim() - 1)).to(grads.real.dtype)
            wide = torch.promote_types(grads.dtype, torch.float32)
            return ((grads * shares).sum(0, dtype=wide) / size).to(update.dtype)

        return tree.map(summed, examples.grads, updates)

    return stateless(f, hypers, needs=("examples",), label="clip_per_example")


def _check_lot_size(lot_size: Any) -> None:
    if lot_size is not None:
        arguments.whole("lot_size", lot_size, of="examples")


def _check_first(updates: Any, examples: Examples) -> None:
    here, mean = tree.leaves(updates), tree.leaves(examples.mean)
    if len(here) != len(mean) or not all(a is b for a, b in zip(here, mean, strict=True)):
        raise InvalidArgument(
            "clip_per_example looks at the gradients of the examples and not at what comes in, so nothing may change "
            "the gradient before it; make it the first piece of the optimizer, and put no flatten around it"
        )


def _squares(grads: Tensor) -> Tensor:
    wide = torch.complex128 if grads.is_complex() else torch.float64
    return grads.to(wide).abs().square().flatten(1).sum(1) if grads.dim() > 1 else grads.to(wide).abs().square()


def _size(examples: Examples, lot_size: int | None) -> Any:
    if lot_size is not None:
        return lot_size
    return torch.where(examples.count > 0, examples.count, 1.0).float()


def add_private_noise(max_norm: Hyper, noise_multiplier: Hyper, lot_size: int | None = None) -> Transform:
    """Return the transform that adds the noise of DP-SGD: u = g + max_norm noise_multiplier z / lot size, z normal.

    It needs the step's random key, and with no lot size `Context.examples`. (Abadi et al., 2016, https://arxiv.org/abs/1607.00133.)

    Args:
        max_norm: at least 0, that of `clip_per_example`.
        noise_multiplier: at least 0; the hyperparameter "noise_multiplier".
        lot_size: that of `clip_per_example`. With one, it may stand behind `accumulate`, whose batches then have so
            many examples together.

    Raises:
        InvalidArgument: an argument is out of range. In `update`, the context lacks what it needs.

    >>> from functrain import optim
    >>> piece, params = add_private_noise(1.0, 0.5, lot_size=100), {"w": torch.zeros(10000)}
    >>> noise = piece.update(params, (), params, optim.Context(key=random.key(0)))[0]["w"]
    >>> round(noise.std().item(), 4)
    0.005
    """
    nonnegative(max_norm=max_norm)
    hypers = nonnegative(noise_multiplier=noise_multiplier)  # the norm is what the piece before shows
    _check_lot_size(lot_size)

    def f(updates: Any, params: Any, context: Context) -> Any:
        size = lot_size if lot_size is not None else _size(context.examples, None)  # pyright: ignore
        spread = schedule.value(max_norm, context) * schedule.value(noise_multiplier, context) / size

        def noisy(path: str, g: Tensor) -> Tensor:
            real = torch.view_as_real(g.resolve_conj()) if g.is_complex() else g
            z = random.normal(random.fold_in(context.key, "private noise", path), tuple(real.shape))  # pyright: ignore
            after = (real + z * spread).to(real.dtype)
            return torch.view_as_complex(after) if g.is_complex() else after

        return map_by_path(noisy, updates)

    needs = ("key",) if lot_size is not None else ("key", "examples")
    return stateless(f, hypers, needs=needs, label="add_private_noise")
