"""Training in few bits. To read: loss_scaling, rounding."""

from functrain.optim.precision.loss_scaling import LossScaled, dynamic_loss_scale, loss_scale
from functrain.optim.precision.rounding import Shortened, round_stochastically, short_state

__all__ = ["LossScaled", "Shortened", "dynamic_loss_scale", "loss_scale", "round_stochastically", "short_state"]
