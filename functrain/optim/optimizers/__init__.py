"""The named optimizers: each is one chain of primitives and holds no algorithm of its own."""

from functrain.optim.optimizers.descent import sgd
from functrain.optim.optimizers.moments import adam, adamw, lion

__all__ = ["adam", "adamw", "lion", "sgd"]
