"""The named optimizers: each is one chain of primitives and holds no algorithm of its own."""

from functrain.optim.optimizers.descent import asgd, sgd
from functrain.optim.optimizers.moments import adam, adamax, adamw, amsgrad, nadam, nadamw, radam
from functrain.optim.optimizers.orthogonal import muon
from functrain.optim.optimizers.signs import lion, rprop
from functrain.optim.optimizers.squares import adadelta, adafactor, adagrad, rmsprop

__all__ = [
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "amsgrad",
    "asgd",
    "lion",
    "muon",
    "nadam",
    "nadamw",
    "radam",
    "rmsprop",
    "rprop",
    "sgd",
]
