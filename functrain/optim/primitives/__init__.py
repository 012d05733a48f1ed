"""The pieces that optimizers are chained of: one family a file, each the formula of one array lifted by `per_leaf`.

In the formulas g is what comes in (the gradient, in the first piece of a chain), u what goes out, p the parameter.
Every hyperparameter is a number or a `Schedule`, and a scalar tensor works too (to vmap over, or to differentiate by).
"""

from functrain.optim.primitives.averaging import average_iterates, scale_by_falling_rate
from functrain.optim.primitives.clipping import (
    adaptive_grad_clip,
    clip,
    clip_by_block_norm,
    clip_by_block_rms,
    clip_by_global_norm,
    clip_by_unit_norm,
    zero_nans,
)
from functrain.optim.primitives.constraining import (
    keep_in_box,
    keep_in_l1_ball,
    keep_in_l2_ball,
    keep_nonnegative,
    keep_on_simplex,
)
from functrain.optim.primitives.decaying import add_decayed_weights, no_biases_or_norms
from functrain.optim.primitives.dual_averaging import scale_by_madgrad
from functrain.optim.primitives.layerwise import centralize, scale_by_novograd, scale_by_trust_ratio
from functrain.optim.primitives.moments import (
    reduce_variance,
    scale_by_adam,
    scale_by_adamax,
    scale_by_adan,
    scale_by_ademamix,
    scale_by_adopt,
    scale_by_amsgrad,
    scale_by_belief,
    scale_by_nadam,
    scale_by_radam,
    scale_by_yogi,
)
from functrain.optim.primitives.momentum import ema, trace
from functrain.optim.primitives.noise import add_noise
from functrain.optim.primitives.orthogonal import orthogonalize, scale_by_shape
from functrain.optim.primitives.scaling import negate, scale, scale_by_inverse_time, scale_by_learning_rate
from functrain.optim.primitives.signs import scale_by_lion, scale_by_rprop, scale_by_sign
from functrain.optim.primitives.squares import (
    scale_by_adadelta,
    scale_by_factored_rms,
    scale_by_param_rms,
    scale_by_relative_step,
    scale_by_rms,
    scale_by_rss,
    scale_by_sm3,
    scale_by_stddev,
)

__all__ = [
    "adaptive_grad_clip",
    "add_decayed_weights",
    "add_noise",
    "average_iterates",
    "centralize",
    "clip",
    "clip_by_block_norm",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "clip_by_unit_norm",
    "ema",
    "keep_in_box",
    "keep_in_l1_ball",
    "keep_in_l2_ball",
    "keep_nonnegative",
    "keep_on_simplex",
    "negate",
    "no_biases_or_norms",
    "orthogonalize",
    "reduce_variance",
    "scale",
    "scale_by_adadelta",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_adan",
    "scale_by_ademamix",
    "scale_by_adopt",
    "scale_by_amsgrad",
    "scale_by_belief",
    "scale_by_factored_rms",
    "scale_by_falling_rate",
    "scale_by_inverse_time",
    "scale_by_learning_rate",
    "scale_by_lion",
    "scale_by_madgrad",
    "scale_by_nadam",
    "scale_by_novograd",
    "scale_by_param_rms",
    "scale_by_radam",
    "scale_by_relative_step",
    "scale_by_rms",
    "scale_by_rprop",
    "scale_by_rss",
    "scale_by_shape",
    "scale_by_sign",
    "scale_by_sm3",
    "scale_by_stddev",
    "scale_by_trust_ratio",
    "scale_by_yogi",
    "trace",
    "zero_nans",
]
