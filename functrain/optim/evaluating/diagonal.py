"""The diagonal of the Hessian, estimated by products with random signs, and steps that it divides: Sophia."""

from typing import Any

import torch
from torch import Tensor

from functrain import arguments, random, schedule, tree
from functrain.engine import cond, vjp
from functrain.optim.arithmetic import lerp, scalar_like, unhide
from functrain.optim.context import Context
from functrain.optim.hypers import decays, nonnegative, positive
from functrain.optim.leaves import per_leaf
from functrain.optim.ordering import map_by_path
from functrain.optim.transform import Transform
from functrain.schedule import Hyper


def scale_by_sophia(
    b1: Hyper = 0.965,
    b2: Hyper = 0.99,
    eps: Hyper = 1e-8,
    gamma: Hyper = 0.01,
    most: Hyper = 1.0,
    every: int = 10,
) -> Transform:
    """Return the transform that divides a mean of the gradients by the diagonal of the Hessian, and clips.

    m = b1 m + (1 - b1) g, and in the t-th update u = m / (1 - b1^t) / max(gamma h, eps), clipped to [-most, most].
    After the first of every `every` updates h = b2 h + (1 - b2) r * (H r), where H is the Hessian of this batch's loss
    and r random signs, of which the mean is the diagonal of H (Hutchinson). It needs `Context.evaluate`, which is
    differentiated once more, and `Context.key`. (Liu et al., 2024, https://arxiv.org/abs/2305.14342; as in optax, which
    like the authors' code looks at h before it changes.)

    Args:
        b1: in [0, 1), the decay of the mean; the hyperparameter "b1".
        b2: in [0, 1), the decay of h; the hyperparameter "b2".
        eps: above 0, the smallest divisor; the hyperparameter "eps".
        gamma: at least 0, a factor of h: the larger, the fewer elements are clipped; the hyperparameter "gamma".
        most: at least 0, the largest element of an update; the hyperparameter "most".
        every: after how many updates h is estimated again, at least 1.

    Raises:
        InvalidArgument: a number is out of range. In `update`, the context has no `evaluate` or no key.
        DtypeMismatch: in `init`, a parameter is complex.

    >>> from functrain import engine, optim
    >>> evaluate = engine.value_and_grad(lambda params: (params["w"] ** 2).sum())
    >>> piece, params = scale_by_sophia(b2=0.0, gamma=1.0, most=2.0), {"w": torch.tensor([3.0])}
    >>> state = piece.init(params)
    >>> for step in range(2):
    ...     loss, grads = evaluate(params)
    ...     context = optim.Context(loss=loss, evaluate=evaluate, key=random.key(step))
    ...     updates, state = piece.update(grads, state, params, context)
    ...     print(updates["w"], state["hessian"]["w"])
    tensor([2.]) tensor([2.])
    tensor([2.]) tensor([2.])
    """
    arguments.whole("every", every, of="updates")

    def once(now) -> dict:
        return {"factor": 1 / (1 - now.b1**now.t)}

    def formula(now, g: Tensor, p: Tensor, m: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        m, limit = lerp(m, g, 1 - now.b1), scalar_like(g, now.most)
        u = m * now.factor / torch.maximum(h * now.gamma, scalar_like(g, now.eps))
        return unhide(torch.minimum(torch.maximum(u, -limit), limit), m), m, h

    hypers = decays(b1=b1, b2=b2) | positive(eps=eps) | nonnegative(gamma=gamma, most=most)
    clipped = per_leaf("scale_by_sophia", formula, hypers, ["mean", "hessian"], counts=True, once=once, real=True)

    def update(updates: Any, state: Any, params: Any, context: Context) -> tuple[Any, Any]:
        changed, after = clipped.update(updates, state, params, context)
        part = 1 - schedule.value(b2, context)

        def estimated() -> Any:
            estimate = hutchinson(params, context)
            return tree.map(lambda h, new: lerp(h, new.to(h.dtype), part), state["hessian"], estimate)

        turn = state["count"] % every == 0
        hessian = estimated() if every == 1 else cond(turn, estimated, lambda: tree.clone(state["hessian"]))
        return changed, {**after, "hessian": hessian}

    return Transform(clipped.init, update, hypers, needs=("evaluate", "key"), label="scale_by_sophia")


def hutchinson(params: Any, context: Context) -> Any:
    """Return an estimate of the diagonal of the Hessian of this batch's loss, of which the mean is that diagonal.

    It is r * (H r) with random signs r. (Hutchinson, 1990, https://doi.org/10.1080/03610919008812866.)

    Args:
        params: where; a tree of real parameters.
        context: with `evaluate` and a key.

    >>> from functrain import engine, optim
    >>> evaluate = engine.value_and_grad(lambda params: (params["w"] ** 3).sum())
    >>> hutchinson({"w": torch.tensor([1.0, 2.0])}, optim.Context(evaluate=evaluate, key=random.key(0)))
    {'w': tensor([ 6., 12.])}
    """
    evaluate: Any = context.evaluate
    if not tree.leaves(params):
        return params

    r = random_signs(params, context)

    def gradients(params: Any) -> Any:
        return tree.map(lambda p, g: g, params, evaluate(params)[1])  # their keys may stand in another order

    # Clones, for inside of `cond` the parameters are closed over, and a gradient within another takes none of those.
    _, pull = vjp(gradients, tree.clone(params))
    return tree.map(lambda product, r: product * r, pull(r)[0], r)


def random_signs(params: Any, context: Context) -> Any:
    """Return 1 or -1 for each number of some parameters, drawn from the context's key.

    >>> from functrain import optim
    >>> random_signs({"w": torch.zeros(3)}, optim.Context(key=random.key(0)))["w"].abs()
    tensor([1., 1., 1.])
    """

    def draw(path: str, p: Tensor) -> Tensor:
        drawn = random.bernoulli(random.fold_in(context.key, "hutchinson", path), 0.5, tuple(p.shape))  # pyright: ignore
        return torch.where(drawn, 1.0, -1.0).to(p.dtype)

    return map_by_path(draw, params)
