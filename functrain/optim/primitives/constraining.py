"""Parameters that stay in a set: the last piece of a chain, which brings each array back to the nearest point of it.

Each array has its own ball or simplex; `flatten(piece)` makes it one for all parameters of a dtype together.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functrain import schedule
from functrain.errors import InvalidArgument
from functrain.optim.arithmetic import length, scalar_like, unhide
from functrain.optim.hypers import nonnegative
from functrain.optim.leaves import per_leaf
from functrain.optim.transform import Transform
from functrain.schedule import Hyper, Schedule


def keep_nonnegative() -> Transform:
    """Return the transform after which no parameter is negative: where p + g is, u = -p.

    The zero is exact. What is NaN or infinite becomes NaN. (optax.keep_params_nonnegative.)

    Raises:
        DtypeMismatch: in `init`, a parameter is complex.

    >>> keep_nonnegative().update({"w": torch.tensor([-3.0, 1.0])}, (), {"w": torch.tensor([2.0, 2.0])})[0]
    {'w': tensor([-2.,  1.])}
    """

    def formula(now, g: Tensor, p: Tensor) -> Tensor:
        return unhide(torch.where(p + g < 0, -p, g), g)

    return per_leaf("keep_nonnegative", formula, real=True)


def keep_in_box(lower: Hyper, upper: Hyper) -> Transform:
    """Return the transform after which each parameter is in [lower, upper], but for rounding.

    Args:
        lower: a number, or minus infinity; the hyperparameter "lower".
        upper: a number, or infinity; the hyperparameter "upper".

    Raises:
        InvalidArgument: a limit is no number, or the lower one is above the upper one.
        DtypeMismatch: in `init`, a parameter is complex.

    >>> keep_in_box(0.0, 1.0).update({"w": torch.tensor([-3.0, 0.5])}, (), {"w": torch.tensor([0.5, 0.0])})[0]
    {'w': tensor([-0.5000,  0.5000])}
    """
    hypers = {"lower": schedule.check_hyper("lower", lower), "upper": schedule.check_hyper("upper", upper)}
    if not any(isinstance(limit, (Schedule, Tensor)) for limit in (lower, upper)) and lower > upper:  # pyright: ignore
        raise InvalidArgument(f"lower must be at most upper, got lower={lower!r}, upper={upper!r}")

    def onto(now, x: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(x, scalar_like(x, now.lower)), scalar_like(x, now.upper))

    return _keeping("keep_in_box", onto, hypers)


def keep_in_l2_ball(radius: Hyper = 1.0) -> Transform:
    """Return the transform after which the Euclidean norm of each array is at most the radius, but for rounding.

    Args:
        radius: at least 0; the hyperparameter "radius".

    Raises:
        InvalidArgument: the radius is no number, or negative.
        DtypeMismatch: in `init`, a parameter is complex.

    >>> keep_in_l2_ball().update({"w": torch.tensor([3.0, 4.0])}, (), {"w": torch.zeros(2)})[0]
    {'w': tensor([0.6000, 0.8000])}
    """

    def onto(now, x: Tensor) -> Tensor:
        size, most = length(x), scalar_like(x, now.radius)
        longer = size > most
        return torch.where(longer, x * (most / torch.where(longer, size, 1.0)), x)

    return _keeping("keep_in_l2_ball", onto, _radius(radius))


def keep_in_l1_ball(radius: Hyper = 1.0) -> Transform:
    """Return the transform after which the absolute values of each array sum to at most the radius, but for rounding.

    The nearest point: all come nearer to 0 by the same amount, and those that reach it stay there. (Duchi et al., 2008,
    https://doi.org/10.1145/1390156.1390191.)

    Args:
        radius: at least 0; the hyperparameter "radius".

    Raises:
        InvalidArgument: the radius is no number, or negative.
        DtypeMismatch: in `init`, a parameter is complex.

    >>> keep_in_l1_ball().update({"w": torch.tensor([2.0, -1.5])}, (), {"w": torch.zeros(2)})[0]
    {'w': tensor([ 0.7500, -0.2500])}
    """

    def onto(now, x: Tensor) -> Tensor:
        sizes, most = x.abs(), scalar_like(x, now.radius)
        return torch.where(sizes.sum() > most, x.sign() * _on_simplex(sizes, most), x)

    return _keeping("keep_in_l1_ball", onto, _radius(radius))


def keep_on_simplex(total: Hyper = 1.0) -> Transform:
    """Return the transform after which each array is nonnegative and sums to a total, but for rounding.

    The nearest point: a number is subtracted from all, and what is below 0 becomes 0. (Duchi et al., 2008,
    https://doi.org/10.1145/1390156.1390191.) An array without elements stays as it is.

    Args:
        total: at least 0; the hyperparameter "total".

    Raises:
        InvalidArgument: the total is no finite number, or negative.
        DtypeMismatch: in `init`, a parameter is complex.

    >>> keep_on_simplex().update({"w": torch.tensor([0.5, 0.7])}, (), {"w": torch.zeros(2)})[0]
    {'w': tensor([0.4000, 0.6000])}
    """

    def onto(now, x: Tensor) -> Tensor:
        return _on_simplex(x, scalar_like(x, now.total))

    return _keeping("keep_on_simplex", onto, nonnegative(total=total))


def _radius(radius: Hyper) -> dict[str, Hyper]:
    return {"radius": schedule.check_hyper("radius", radius, minimum=0)}


def _keeping(label: str, onto: Callable[[Any, Tensor], Tensor], hypers: dict[str, Hyper]) -> Transform:
    """Return the transform that changes the updates so that the parameters come to where a projection brings them."""

    def formula(now, g: Tensor, p: Tensor) -> Tensor:
        return unhide(onto(now, p + g) - p, g)

    return per_leaf(label, formula, hypers, real=True)


def _on_simplex(x: Tensor, total: Tensor) -> Tensor:
    if x.numel() == 0:
        return x
    # What is subtracted is the largest of those that make the first k of the sorted numbers sum to the total.
    falling = x.flatten().sort(descending=True).values
    excess = (falling.cumsum(0) - total) / torch.arange(1, falling.numel() + 1, dtype=x.dtype, device=x.device)
    return (x - excess.amax()).clamp(min=0)
