"""Whole matrices instead of their elements: Shampoo, SOAP, and projections to fewer rows.

A parameter of more than two axes counts as a matrix of its first axis by all others. To read: matrices, shampoo, soap,
low_rank, optimizers.
"""

from functrain.optim.preconditioning.low_rank import Projected, low_rank
from functrain.optim.preconditioning.optimizers import galore, shampoo, soap
from functrain.optim.preconditioning.shampoo import scale_by_shampoo
from functrain.optim.preconditioning.soap import scale_by_soap

__all__ = ["Projected", "galore", "low_rank", "scale_by_shampoo", "scale_by_soap", "shampoo", "soap"]
