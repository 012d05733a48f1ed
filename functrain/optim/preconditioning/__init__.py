"""Whole matrices instead of their elements: Shampoo, SOAP, and projections to fewer rows.

A parameter of more than two axes counts as a matrix of its first axis by all others. To read: matrices, axes,
eigenbases, projecting, optimizers.
"""

from functrain.optim.preconditioning.axes import scale_by_shampoo
from functrain.optim.preconditioning.eigenbases import scale_by_soap
from functrain.optim.preconditioning.optimizers import galore, shampoo, soap
from functrain.optim.preconditioning.projecting import Projected, low_rank

__all__ = ["Projected", "galore", "low_rank", "scale_by_shampoo", "scale_by_soap", "shampoo", "soap"]
