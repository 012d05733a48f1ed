"""Rates that find themselves. To read: distance, polyak, learned_scale, interpolating, optimizers.

What they have in common is that a number of all leaves together (a distance, a norm, a sum) decides how far to go.
"""

from functrain.optim.tuning_free.distance import scale_by_dog, scale_by_dowg, scale_by_prodigy
from functrain.optim.tuning_free.interpolating import ScheduleFree, evaluation_params, schedule_free
from functrain.optim.tuning_free.learned_scale import Mechanized, mechanize
from functrain.optim.tuning_free.optimizers import (
    dog,
    dowg,
    polyak_sgd,
    prodigy,
    schedule_free_adamw,
    schedule_free_sgd,
)
from functrain.optim.tuning_free.polyak import scale_by_polyak

__all__ = [
    "Mechanized",
    "ScheduleFree",
    "dog",
    "dowg",
    "evaluation_params",
    "mechanize",
    "polyak_sgd",
    "prodigy",
    "scale_by_dog",
    "scale_by_dowg",
    "scale_by_polyak",
    "scale_by_prodigy",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_sgd",
]
