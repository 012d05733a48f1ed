"""The pieces that optimizers are chained of: one family a file, each the formula of one array lifted by `per_leaf`.

In the formulas g is what comes in (the gradient, in the first piece of a chain), u what goes out, p the parameter.
Every hyperparameter is a number or a `Schedule`, and a scalar tensor works too (to vmap over, or to differentiate by).
"""

from functrain.optim.primitives.averaging import average_iterates, scale_by_falling_rate
from functrain.optim.primitives.clipping import clip_by_block_rms, clip_by_global_norm
from functrain.optim.primitives.decaying import add_decayed_weights
from functrain.optim.primitives.factored import scale_by_factored_rms, scale_by_param_rms, scale_by_relative_step
from functrain.optim.primitives.moments import (
    scale_by_adam,
    scale_by_adamax,
    scale_by_amsgrad,
    scale_by_nadam,
    scale_by_radam,
)
from functrain.optim.primitives.momentum import ema, trace
from functrain.optim.primitives.orthogonal import orthogonalize, scale_by_shape
from functrain.optim.primitives.scaling import negate, scale, scale_by_inverse_time, scale_by_learning_rate
from functrain.optim.primitives.signs import scale_by_lion, scale_by_rprop
from functrain.optim.primitives.squares import (
    scale_by_adadelta,
    scale_by_debiased_rms,
    scale_by_rms,
    scale_by_rss,
    scale_by_stddev,
)

__all__ = [
    "add_decayed_weights",
    "average_iterates",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "ema",
    "negate",
    "orthogonalize",
    "scale",
    "scale_by_adadelta",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_amsgrad",
    "scale_by_debiased_rms",
    "scale_by_factored_rms",
    "scale_by_falling_rate",
    "scale_by_inverse_time",
    "scale_by_learning_rate",
    "scale_by_lion",
    "scale_by_nadam",
    "scale_by_param_rms",
    "scale_by_radam",
    "scale_by_relative_step",
    "scale_by_rms",
    "scale_by_rprop",
    "scale_by_rss",
    "scale_by_shape",
    "scale_by_stddev",
    "trace",
]
