"""Functions of functions: gradients, vectorisation and folds over pure functions of trees."""

from functrain.engine.check import Report, check
from functrain.engine.fold import Stop, fold
from functrain.engine.grad import grad, value_and_grad
from functrain.engine.jit import Jitted, Lowered, Trace, jit
from functrain.engine.vectorize import vmap

__all__ = ["Jitted", "Lowered", "Report", "Stop", "Trace", "check", "fold", "grad", "jit", "value_and_grad", "vmap"]
