"""Gradients from where the loss is highest nearby, so that what is found is flat: SAM."""

from typing import Any

from torch import Tensor

from functrain import schedule, tree
from functrain.norms import scaled_norm
from functrain.optim.context import Context
from functrain.optim.hypers import nonnegative
from functrain.optim.shapes import check_gradients
from functrain.optim.transform import Transform, stateless
from functrain.schedule import Hyper


def gradients_uphill(rho: Hyper = 0.05, adaptive: bool = False) -> Transform:
    """Return the transform that replaces the gradient by that at the highest point nearby. The first piece of a chain.

    u is the gradient of this batch at p + rho g / |g|, where |g| is the norm of all leaves together; or if it is
    adaptive, at p + rho p^2 g / |p g|, which does not depend on the scale of the parameters. It needs
    `Context.evaluate`, and calls it once. (Foret et al., 2021, https://arxiv.org/abs/2010.01412; Kwon et al., 2021,
    https://arxiv.org/abs/2102.11600.)

    Args:
        rho: at least 0, how far uphill; the hyperparameter "rho".
        adaptive: whether a parameter moves in proportion to its size.

    Raises:
        InvalidArgument: rho is out of range. In `update`, the context has no `evaluate`.

    >>> import torch
    >>> from functrain import engine, optim
    >>> evaluate = engine.value_and_grad(lambda params: (params["w"] ** 2).sum())
    >>> params = {"w": torch.tensor([3.0])}
    >>> loss, grads = evaluate(params)
    >>> gradients_uphill(0.5).update(grads, (), params, optim.Context(loss=loss, evaluate=evaluate))[0]
    {'w': tensor([7.])}
    """

    def f(updates: Any, params: Any, context: Context) -> Any:
        check_gradients(updates, params)
        scaled = tree.map(lambda g, p: p.abs() * g, updates, params) if adaptive else updates
        unit, norm = scaled_norm(tree.leaves(scaled))
        factor = schedule.value(rho, context) / unit / (norm + (norm == 0))

        def climbed(p: Tensor, way: Tensor) -> Tensor:
            way = p.abs() * way if adaptive else way
            return p + (way * factor.to(way.real.dtype)).to(p.dtype)

        there = tree.map(climbed, params, scaled)
        return context.evaluate(there)[1]  # pyright: ignore[reportOptionalCall]

    return stateless(f, nonnegative(rho=rho), needs=("evaluate",), label="gradients_uphill")
