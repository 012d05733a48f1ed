"""Limits of single elements, and zeros for what is no number."""

import torch
from torch import Tensor

from functrain import schedule
from functrain.optim.arithmetic import scalar_like, unhide
from functrain.optim.leaves import per_leaf
from functrain.optim.transform import Transform
from functrain.schedule import Hyper


def clip(max_delta: Hyper) -> Transform:
    """Return the transform that keeps each element within limits: u = min(max(g, -max_delta), max_delta).

    So the direction changes, unlike in `clip_by_global_norm`. What is NaN or infinite becomes NaN; it is not hidden.

    Args:
        max_delta: at least 0; the hyperparameter "max_delta".

    Raises:
        InvalidArgument: the limit is no number, or negative.

    >>> clip(1.0).update({"w": torch.tensor([3.0, -0.5])}, (), {"w": torch.zeros(2)})
    ({'w': tensor([ 1.0000, -0.5000])}, ())
    """
    schedule.check_hyper("max_delta", max_delta, minimum=0)

    def formula(now, g: Tensor, p: Tensor) -> Tensor:
        limit = scalar_like(g, now.max_delta)
        return unhide(torch.minimum(torch.maximum(g, -limit), limit), g)

    return per_leaf("clip", formula, {"max_delta": max_delta})


def zero_nans() -> Transform:
    """Return the transform that puts 0 where an element is NaN, and keeps which arrays had one in the last update.

    Infinities stay. The state has "seen", for each array whether it held NaN. It hides that something is wrong:
    `skip_nonfinite` counts what it leaves out.

    >>> piece, params = zero_nans(), {"w": torch.zeros(2)}
    >>> piece.update({"w": torch.tensor([float("nan"), 2.0])}, piece.init(params), params)
    ({'w': tensor([0., 2.])}, {'seen': {'w': tensor(True)}})
    """

    def formula(now, g: Tensor, p: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        bad = g.isnan()
        return torch.where(bad, 0.0, g), bad.any()

    return per_leaf("zero_nans", formula, slots={"seen": lambda p: p.new_zeros((), dtype=torch.bool)})
