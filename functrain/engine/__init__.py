"""Functions of functions: gradients, vectorisation, folds, and compilation of pure functions of trees."""

from functrain.engine.calling.jitting import Jitted, Lowered, Trace, jit
from functrain.engine.transforms.checking import Report, check
from functrain.engine.transforms.folding import Stop, fold
from functrain.engine.transforms.gradients import grad, value_and_grad
from functrain.engine.transforms.rematerializing import remat
from functrain.engine.transforms.scanning.scans import scan
from functrain.engine.transforms.vectorizing import vmap

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
