"""The pieces that optimizers are chained of, each one line of maths for a leaf.

In the formulas g is what comes in (the gradient, in the first piece of a chain), u what goes out, p the parameter.
Every hyperparameter is a number or a `Schedule`, and a scalar tensor works too (to vmap over, or to differentiate by).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from functrain import schedule, tree
from functrain.errors import InvalidArgument
from functrain.norms import scaled_norm
from functrain.optim.leaves import by_parts, is_zero, lerp, like, plus, plus_square, root, times, wide_zeros
from functrain.optim.transform import Context, Transform, counter, stateless, stepped, with_params, with_state
from functrain.schedule import Hyper, Number


def scale(factor: Hyper) -> Transform:
    """Return the transform that multiplies: u = factor * g.

    Args:
        factor: any number, or a schedule; the hyperparameter "factor".

    >>> import torch
    >>> scale(0.5).update({"w": torch.tensor([4.0])}, (), {"w": torch.zeros(1)}, Context())
    ({'w': tensor([2.])}, ())
    """
    schedule.check_hyper("factor", factor)

    return _scaling(lambda context: schedule.value(factor, context), {"factor": factor})


def scale_by_learning_rate(lr: Hyper) -> Transform:
    """Return the transform that steps against the gradient: u = -lr * g. The last piece of most chains.

    Args:
        lr: at least 0; the hyperparameter "lr".

    Raises:
        InvalidArgument: the learning rate is no number, or negative.

    >>> import torch
    >>> scale_by_learning_rate(0.5).update({"w": torch.tensor([4.0])}, (), {"w": torch.zeros(1)}, Context())
    ({'w': tensor([-2.])}, ())
    """
    schedule.check_hyper("lr", lr, minimum=0)

    return _scaling(lambda context: -schedule.value(lr, context), {"lr": lr})


def _scaling(factor: Callable[[Context], Number], hypers: Mapping[str, Hyper]) -> Transform:
    def update(updates: Any, state: Any, params: Any, context: Context) -> tuple[Any, Any]:
        return scaled(updates, factor(context)), state

    def move(updates: Any, state: Any, params: Any, context: Context) -> tuple[Any, Any]:
        return stepped(params, updates, factor(context), "the gradients"), state

    return Transform(lambda params: (), update, hypers, move)


def add_decayed_weights(weight_decay: Hyper) -> Transform:
    """Return the transform that adds a part of the parameters: u = g + weight_decay * p.

    Before a piece that rescales it is the gradient of an L2 penalty; after it, decoupled weight decay (Loshchilov and
    Hutter, 2019, https://arxiv.org/abs/1711.05101).

    Args:
        weight_decay: at least 0; the hyperparameter "weight_decay".

    Raises:
        InvalidArgument: the weight decay is no number, or negative.

    >>> import torch
    >>> add_decayed_weights(0.5).update({"w": torch.tensor([1.0])}, (), {"w": torch.tensor([4.0])}, Context())
    ({'w': tensor([3.])}, ())
    """
    schedule.check_hyper("weight_decay", weight_decay, minimum=0)

    def f(updates: Any, params: Any, context: Context) -> Any:
        decay = schedule.value(weight_decay, context)
        return with_params(lambda g, p: plus(g, p, decay), updates, params)

    return stateless(f, {"weight_decay": weight_decay})


@tree.node
class TraceState:
    """The state of `trace`.

    Attributes:
        buffer: the running sum b, shaped like the parameters, in float32 at least.
        count: updates seen, an int64 scalar; `()` without dampening, which needs none.
    """

    buffer: Any
    count: Any = ()


def trace(momentum: Hyper, dampening: Hyper = 0.0, nesterov: bool = False) -> Transform:
    """Return the transform that keeps a decaying sum of what came in (momentum), as torch.optim.SGD does.

    b = momentum * b + (1 - dampening) * g, and u = b; with `nesterov` u = g + momentum * b. The first update is not
    dampened: b = g. (Polyak, 1964, https://doi.org/10.1016/0041-5553(64)90137-5; Sutskever et al., 2013,
    https://proceedings.mlr.press/v28/sutskever13.html.)

    Args:
        momentum: at least 0; the hyperparameter "momentum".
        dampening: the hyperparameter "dampening", unless it is the number 0.
        nesterov: whether to look one step ahead.

    Raises:
        InvalidArgument: a number is out of range, or `nesterov` comes with a momentum of zero or with dampening.

    >>> import torch
    >>> piece = trace(momentum=0.5)
    >>> params = {"w": torch.zeros(1)}
    >>> first, state = piece.update({"w": torch.tensor([4.0])}, piece.init(params), params, Context())
    >>> second, state = piece.update({"w": torch.tensor([4.0])}, state, params, Context())
    >>> first, second
    ({'w': tensor([4.])}, {'w': tensor([6.])})
    """
    schedule.check_hyper("momentum", momentum, minimum=0)
    schedule.check_hyper("dampening", dampening)
    damped = not is_zero(dampening)
    if nesterov and (is_zero(momentum) or damped):
        raise InvalidArgument(
            f"nesterov needs a momentum and no dampening, got momentum={momentum!r}, dampening={dampening!r}"
        )

    def init(params: Any) -> TraceState:
        # A buffer of zeros makes the first one the gradient itself; only dampening must know which is the first.
        return TraceState(tree.map(wide_zeros, params), counter(params) if damped else ())

    def update(updates: Any, state: TraceState, params: Any, context: Context) -> tuple[Any, TraceState]:
        decay = schedule.value(momentum, context)
        fresh, count = updates, state.count
        if damped:
            kept = 1.0 - (count > 0).double() * schedule.value(dampening, context)
            fresh, count = scaled(updates, kept), count + 1
        buffer = with_state(lambda g, b: plus(g, b, decay), fresh, state.buffer)
        ahead = tree.map(lambda g, b: plus(g, b, decay), updates, buffer) if nesterov else buffer
        return tree.map(as_given, ahead, updates), TraceState(buffer, count)

    return Transform(init, update, {"momentum": momentum, **({"dampening": dampening} if damped else {})})


def clip_by_global_norm(max_norm: Hyper) -> Transform:
    """Return the transform that shortens what is too long: u = g * min(1, max_norm / |g|).

    |g| is the Euclidean norm of all leaves taken as one vector, so the direction stays; no square on the way to it
    overflows. Where an element is NaN or infinite every update becomes NaN; it is not hidden. (Pascanu et al., 2013, https://proceedings.mlr.press/v28/pascanu13.html.)

    Args:
        max_norm: at least 0; the hyperparameter "max_norm".

    Raises:
        InvalidArgument: the norm is no number, or negative.

    >>> import torch
    >>> clip_by_global_norm(1.0).update({"w": torch.tensor([3.0, 4.0])}, (), {"w": torch.zeros(2)}, Context())
    ({'w': tensor([0.6000, 0.8000])}, ())
    """
    schedule.check_hyper("max_norm", max_norm, minimum=0)

    def f(updates: Any, params: Any, context: Context) -> Any:
        unit, norm = scaled_norm(tree.leaves(updates))
        limit = schedule.value(max_norm, context)
        # The division where the norm is not zero: 0 / 0 would be NaN for max_norm 0 and no gradient at all.
        factor = (limit / unit / (norm + (norm == 0))).clamp(max=1.0)
        factor = torch.where(norm.isfinite(), factor, torch.nan)
        # In two steps, since the factor of a very large norm is no normal number of a short dtype.
        first = torch.where(factor > 0, factor, 1.0).detach().sqrt()
        return scaled(scaled(updates, first), factor / first)

    return stateless(f, {"max_norm": max_norm})


@tree.node
class AdamState:
    """The state of `scale_by_adam`.

    Attributes:
        count: updates seen, an int64 scalar.
        first: the decaying mean m of the gradients, in float32 at least.
        second: the decaying mean v of their squares, in float32 at least.
    """

    count: Tensor
    first: Any
    second: Any


def scale_by_adam(b1: Hyper = 0.9, b2: Hyper = 0.999, eps: Hyper = 1e-8) -> Transform:
    """Return the transform that divides a mean of the gradients by the root of their mean square.

    m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,  and in the t-th update
    u = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps). (Kingma and Ba, 2015, https://arxiv.org/abs/1412.6980.)
    Scheduled b1 and b2 correct the bias with their current value, as PyTorch's one-cycle schedule does. A complex
    number counts as two real ones, as in PyTorch. Where g or g^2 is not finite in the dtype of v, the update is NaN.

    Args:
        b1: in [0, 1), the decay of the mean; the hyperparameter "b1".
        b2: in [0, 1), the decay of the mean square; the hyperparameter "b2".
        eps: at least 0, keeps the divisor away from zero; the hyperparameter "eps".

    Raises:
        InvalidArgument: a number is out of range.

    >>> import torch
    >>> piece = scale_by_adam()
    >>> params = {"w": torch.zeros(2)}
    >>> updates, state = piece.update({"w": torch.tensor([3.0, -0.1])}, piece.init(params), params, Context())
    >>> updates
    {'w': tensor([ 1., -1.])}
    """
    schedule.check_hyper("b1", b1, minimum=0, below=1)
    schedule.check_hyper("b2", b2, minimum=0, below=1)
    schedule.check_hyper("eps", eps, minimum=0)

    def init(params: Any) -> AdamState:
        return AdamState(counter(params), tree.map(wide_zeros, params), tree.map(wide_zeros, params))

    def update(updates: Any, state: AdamState, params: Any, context: Context) -> tuple[Any, AdamState]:
        d1, d2, e = (schedule.value(hyper, context) for hyper in (b1, b2, eps))
        count = state.count + 1
        first = with_state(lambda g, m: lerp(m, g.to(m.dtype), 1 - d1), updates, state.first)
        square = by_parts(lambda g, v: plus_square(times(v, d2), g.to(v.dtype), 1 - d2))
        second = with_state(square, updates, state.second)
        # In float64, and for all leaves at once: the same as in the formula, with both corrections moved to one factor.
        t = count.double()
        correction = (1 - d2**t).sqrt()
        factor, floor = correction / (1 - d1**t), correction * e
        # With 0 * v, which is NaN where the square of a gradient overflowed: m / inf would be 0, and hide it for ever.
        ratio = by_parts(lambda m, v: plus(times(m, factor) / (root(v) + like(floor, v)), v, 0))
        ratios = tree.map(ratio, first, second)
        return tree.map(as_given, ratios, updates), AdamState(count, first, second)

    return Transform(init, update, {"b1": b1, "b2": b2, "eps": eps})


def as_given(update: Tensor, given: Tensor) -> Tensor:
    """Return an update in the dtype of what came in.

    >>> import torch
    >>> as_given(torch.ones(1), torch.ones(1, dtype=torch.float16)).dtype
    torch.float16
    """
    return update if update.dtype == given.dtype else update.to(given.dtype)


def scaled(updates: Any, factor: Number) -> Any:
    """Return the tree of `times(leaf, factor)`.

    >>> import torch
    >>> scaled({"w": torch.ones(2)}, 0.5)
    {'w': tensor([0.5000, 0.5000])}
    """
    if isinstance(factor, Tensor):
        return tree.map(lambda g: times(g, factor), updates)
    return tree.map(lambda g: g * factor, updates)
