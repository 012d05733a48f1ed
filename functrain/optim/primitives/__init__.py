"""The pieces that optimizers are chained of: one family a file, each the formula of one array lifted by `per_leaf`.

In the formulas g is what comes in (the gradient, in the first piece of a chain), u what goes out, p the parameter.
Every hyperparameter is a number or a `Schedule`, and a scalar tensor works too (to vmap over, or to differentiate by).
"""

from functrain.optim.primitives.adaptive import scale_by_adam
from functrain.optim.primitives.clipping import clip_by_global_norm
from functrain.optim.primitives.decaying import add_decayed_weights
from functrain.optim.primitives.momentum import trace
from functrain.optim.primitives.scaling import negate, scale, scale_by_learning_rate
from functrain.optim.primitives.signs import scale_by_lion

__all__ = [
    "add_decayed_weights",
    "clip_by_global_norm",
    "negate",
    "scale",
    "scale_by_adam",
    "scale_by_learning_rate",
    "scale_by_lion",
    "trace",
]
