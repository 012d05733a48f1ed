"""A factor of another optimizer's updates that is learned while it trains: Mechanic."""

from typing import Any

import torch
from torch import Tensor

from functrain import arguments, schedule, tree
from functrain.optim.arithmetic import root
from functrain.optim.context import Context
from functrain.optim.counting import has_updated
from functrain.optim.hypers import check_fixed, nonnegative, positive
from functrain.optim.shapes import check_gradients, check_state, check_trainable, device, wide_copy
from functrain.optim.transform import Transform, check_transform
from functrain.optim.tuning_free.polyak import dot, squared_norm
from functrain.optim.wrappers.accumulation import refuse_sums
from functrain.schedule import Hyper, Number


@tree.node
class Mechanized:
    """The state of `mechanize`; all but the last two are float64 vectors, one number for each memory.

    Attributes:
        scale: the parts of the factor of all updates; their sum is the factor.
        reward: what each part has earned.
        peak: the largest of the products that it is made of, which decays.
        square: the sum of their squares, which decays.
        first: the parameters at the beginning, in float32 at least.
        inner: the state of the transform inside.
    """

    scale: Tensor
    reward: Tensor
    peak: Tensor
    square: Tensor
    first: Any
    inner: Any


def mechanize(
    transform: Transform, decay: Hyper = 1e-2, eps: Number = 1e-8, initial: Number = 1e-6, memories: int = 6
) -> Transform:
    """Return the transform that learns by which factor another one's updates should be taken.

    The transform inside should have the rate 1, or a schedule that begins there. All its updates so far, D, are taken
    times the factor S, the sum of s_1, s_2, ...: p = p_0 + S D. With the gradient g, to which decay S |g| p / |p| is
    added, and h = <g, -D> before this update, for each b_i = 1 - 0.1^i: r_i = b_i r_i + clip(h, -m_i, m_i) s_i,
    m_i = max(b_i m_i, |h| + eps), v_i = b_i^2 v_i + h^2, and s_i = (initial m_i / memories + max(r_i, 0)) /
    (sqrt(v_i) + eps). (Cutkosky et al., 2023, https://arxiv.org/abs/2306.00144; as in optax.)

    Args:
        transform: the whole optimizer inside.
        decay: at least 0, which draws towards 0; the hyperparameter "mechanic_decay".
        eps: above 0, keeps divisors away from zero.
        initial: above 0, the first factor.
        memories: how many b_i, at least 1.

    Raises:
        InvalidArgument: a number is out of range, or the transform is none. In `init`, the transform accumulates.

    >>> from functrain import optim
    >>> tuned, params = mechanize(optim.sgd(1.0)), {"w": torch.tensor([1.0])}
    >>> state = tuned.init(params)
    >>> for _ in range(100):
    ...     params, state = optim.step(tuned, params, state, params)  # of w^2 / 2
    >>> bool(params["w"].abs() < 0.1)
    True
    """
    check_transform(transform)
    arguments.whole("memories", memories)
    hypers = nonnegative(mechanic_decay=decay)
    positive(eps=eps, initial=initial)
    check_fixed(eps=eps, initial=initial)
    made = transform.made

    def init(params: Any) -> Mechanized:
        check_trainable(params)
        zero = torch.zeros(memories, dtype=torch.float64, device=device(params))
        wide = wide_copy(params)
        inner = transform.init(params)
        refuse_sums(
            inner,
            f"mechanize: {transform!r} makes updates of several batches, and what it earns would be measured by the "
            "gradient of the last one; put it around: accumulate(k, mechanize(...))",
        )
        return Mechanized(zero + initial, zero, zero.clone(), zero.clone(), wide, inner)

    def update(updates: Any, state: Mechanized, params: Any, context: Context) -> tuple[Any, Mechanized]:
        check_gradients(updates, params)
        check_state(state.first, params)
        emitted, inner = transform.update(updates, state.inner, params, context)
        total = state.scale.sum()
        away = tree.map(lambda first, p: _divide(first - p, total + eps), state.first, params)
        pull = schedule.value(decay, context) * total * root(squared_norm(updates, params))
        pull = pull / (root(squared_norm(params, params)) + eps)
        h = dot(updates, away, params) + pull * dot(params, away, params)
        learned = _learn(state, h, inner)
        factor = learned.scale.sum()
        changed = tree.map(
            lambda u, first, p, d: (first - _times(d - u, factor) - p).to(u.dtype), emitted, state.first, params, away
        )
        happened = has_updated(transform, state.inner, inner)
        if happened is None:
            return changed, learned
        kept = tree.evolve(state, inner=inner)
        return (
            tree.map(lambda u: torch.where(happened, u, torch.zeros_like(u)), changed),
            tree.map(lambda new, old: torch.where(happened, new, old), learned, kept),
        )

    def _learn(state: Mechanized, h: Tensor, inner: Any) -> Mechanized:
        keeps = 1 - 0.1 ** torch.arange(1, memories + 1, dtype=torch.float64, device=h.device)
        reward = keeps * state.reward + torch.minimum(torch.maximum(h, -state.peak), state.peak) * state.scale
        peak = torch.maximum(keeps * state.peak, h.abs() + eps)
        square = keeps**2 * state.square + h**2
        scale = (initial / memories * peak + reward.clamp(min=0)) / (root(square) + eps)
        return Mechanized(scale, reward, peak, square, state.first, inner)

    return Transform(
        init,
        update,
        {**transform.hypers, **hypers},
        made=None if made is None else lambda state: made(state.inner),
        needs=transform.needs,
        label=lambda: f"mechanize({transform!r})",
    )


def _times(a: Tensor, factor: Tensor) -> Tensor:
    return a * factor.to(a.real.dtype)


def _divide(a: Tensor, by: Tensor) -> Tensor:
    return a / by.to(a.real.dtype)
