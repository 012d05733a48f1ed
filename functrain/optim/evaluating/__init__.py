"""What looks at the loss of other parameters than those that are trained. To read: sharpness, diagonal, optimizers."""

from functrain.optim.evaluating.diagonal import scale_by_sophia
from functrain.optim.evaluating.optimizers import sam, sophia
from functrain.optim.evaluating.sharpness import gradients_uphill

__all__ = ["gradients_uphill", "sam", "scale_by_sophia", "sophia"]
