"""Functions of functions: gradients, vectorisation, folds, and compilation of pure functions of trees."""

from functrain.engine.calling.jitting import Jitted, Lowered, Trace, jit
from functrain.engine.transforms.checking import Report, check
from functrain.engine.transforms.control import cond, while_loop
from functrain.engine.transforms.custom import custom_gradient, stop_gradient
from functrain.engine.transforms.derivatives import hessian, hvp, jacfwd, jacrev, jvp, vjp
from functrain.engine.transforms.folding import Stop, fold
from functrain.engine.transforms.gradients import grad, value_and_grad
from functrain.engine.transforms.rematerializing import remat
from functrain.engine.transforms.scanning.scans import scan
from functrain.engine.transforms.shapes import ShapeDtype, eval_shape
from functrain.engine.transforms.vectorizing import vmap

__all__ = [
    "Jitted",
    "Lowered",
    "Report",
    "ShapeDtype",
    "Stop",
    "Trace",
    "check",
    "cond",
    "custom_gradient",
    "eval_shape",
    "fold",
    "grad",
    "hessian",
    "hvp",
    "jacfwd",
    "jacrev",
    "jit",
    "jvp",
    "remat",
    "scan",
    "stop_gradient",
    "value_and_grad",
    "vjp",
    "vmap",
    "while_loop",
]


def __dir__() -> list[str]:
    return __all__
