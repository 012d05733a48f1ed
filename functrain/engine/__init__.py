"""Functions of functions: gradients, vectorisation, folds, and compilation of pure functions of trees."""

from functrain.engine.checking import Report, check
from functrain.engine.folding import Stop, fold
from functrain.engine.gradients import grad, value_and_grad
from functrain.engine.jitting import Jitted, Lowered, Trace, jit
from functrain.engine.rematerialize import remat
from functrain.engine.scanning import scan
from functrain.engine.vectorize import vmap

__all__ = [
    "Jitted",
    "Lowered",
    "Report",
    "Stop",
    "Trace",
    "check",
    "fold",
    "grad",
    "jit",
    "remat",
    "scan",
    "value_and_grad",
    "vmap",
]
