"""Means of gradients, divided by the size that gradients usually have: Adam and its relatives."""

from functrain.optim.primitives.moments.adam import (
    scale_by_adam,
    scale_by_adamax,
    scale_by_amsgrad,
    scale_by_nadam,
    scale_by_radam,
)
from functrain.optim.primitives.moments.belief import scale_by_belief, scale_by_yogi
from functrain.optim.primitives.moments.delayed import scale_by_adopt
from functrain.optim.primitives.moments.differences import reduce_variance, scale_by_adan
from functrain.optim.primitives.moments.two_speeds import scale_by_ademamix

__all__ = [
    "reduce_variance",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_adan",
    "scale_by_ademamix",
    "scale_by_adopt",
    "scale_by_amsgrad",
    "scale_by_belief",
    "scale_by_nadam",
    "scale_by_radam",
    "scale_by_yogi",
]
