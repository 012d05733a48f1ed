"""Steps by an estimate of the curvature, and line searches. To read: vectors, curvature, line_search, optimizers."""

from functrain.optim.quasi_newton.curvature import scale_by_lbfgs
from functrain.optim.quasi_newton.line_search import strong_wolfe
from functrain.optim.quasi_newton.optimizers import lbfgs

__all__ = ["lbfgs", "scale_by_lbfgs", "strong_wolfe"]
