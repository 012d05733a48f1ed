"""The named optimizers: each is one chain of primitives and holds no algorithm of its own."""

from functrain.optim.optimizers.descent import asgd, momentum, noisy_sgd, sgd
from functrain.optim.optimizers.differences import adan, mars
from functrain.optim.optimizers.from_the_start import madgrad, ranger
from functrain.optim.optimizers.layerwise import lamb, lars, novograd
from functrain.optim.optimizers.moments import adam, adamax, adamw, amsgrad, nadam, nadamw, radam
from functrain.optim.optimizers.orthogonal import muon
from functrain.optim.optimizers.relatives import adabelief, ademamix, adopt, cautious_adamw, cautious_lion, yogi
from functrain.optim.optimizers.signs import lion, rprop, signum
from functrain.optim.optimizers.squares import adadelta, adafactor, adagrad, rmsprop, sm3

__all__ = [
    "adabelief",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "adan",
    "ademamix",
    "adopt",
    "amsgrad",
    "asgd",
    "cautious_adamw",
    "cautious_lion",
    "lamb",
    "lars",
    "lion",
    "madgrad",
    "mars",
    "momentum",
    "muon",
    "nadam",
    "nadamw",
    "noisy_sgd",
    "novograd",
    "radam",
    "ranger",
    "rmsprop",
    "rprop",
    "sgd",
    "signum",
    "sm3",
    "yogi",
]
