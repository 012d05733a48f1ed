"""Training that hides what each example was: DP-SGD. To read: pieces, optimizers."""

from functrain.optim.private.optimizers import dpsgd
from functrain.optim.private.pieces import add_private_noise, clip_per_example

__all__ = ["add_private_noise", "clip_per_example", "dpsgd"]
