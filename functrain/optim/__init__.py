"""Optimizers as pure functions: transforms of gradients that compose.

A `Transform` is a pair of functions: `init(params)` gives its state, `update(updates, state, params)` turns gradients
into updates and gives the next state. `chain` composes transforms; a named optimizer is one short chain, and its pieces
are formulas of one array, lifted to trees by `per_leaf`. To read: transform, context, leaves, chaining, stepping; then
`primitives/`, `optimizers/` and `wrappers/`.

>>> import torch
>>> optimizer = chain(clip_by_global_norm(1.0), trace(momentum=0.9), scale_by_learning_rate(0.1))
>>> params = {"w": torch.tensor([1.0, 2.0])}
>>> opt_state = optimizer.init(params)
>>> params, opt_state = step(optimizer, {"w": torch.tensor([3.0, 4.0])}, opt_state, params)
>>> params
{'w': tensor([0.9400, 1.9200])}
"""

from functrain.optim.chaining import alias, chain, named_chain
from functrain.optim.context import Context
from functrain.optim.counting import updates_made
from functrain.optim.leaves import per_leaf
from functrain.optim.optimizers import (
    adadelta,
    adafactor,
    adagrad,
    adam,
    adamax,
    adamw,
    amsgrad,
    asgd,
    lion,
    muon,
    nadam,
    nadamw,
    radam,
    rmsprop,
    rprop,
    sgd,
)
from functrain.optim.primitives import (
    add_decayed_weights,
    average_iterates,
    clip_by_block_rms,
    clip_by_global_norm,
    ema,
    negate,
    orthogonalize,
    scale,
    scale_by_adadelta,
    scale_by_adam,
    scale_by_adamax,
    scale_by_amsgrad,
    scale_by_factored_rms,
    scale_by_falling_rate,
    scale_by_inverse_time,
    scale_by_learning_rate,
    scale_by_lion,
    scale_by_nadam,
    scale_by_param_rms,
    scale_by_radam,
    scale_by_relative_step,
    scale_by_rms,
    scale_by_rprop,
    scale_by_rss,
    scale_by_shape,
    scale_by_stddev,
    trace,
)
from functrain.optim.quasi_newton import lbfgs, scale_by_lbfgs, strong_wolfe
from functrain.optim.stepping import apply_updates, step
from functrain.optim.torch_states import from_torch, to_torch
from functrain.optim.transform import Transform, hyperparameters, identity, named, stateless
from functrain.optim.wrappers import (
    Accumulated,
    Gated,
    Injected,
    LookedAhead,
    Partitioned,
    Plateau,
    Rejected,
    Skipped,
    accumulate,
    apply_if_finite,
    discriminative,
    edit_injected,
    flatten,
    freeze,
    gate,
    inject,
    lookahead,
    masked,
    partition,
    read_injected,
    reduce_on_plateau,
    skip_nonfinite,
    spread,
    unfreeze_gradually,
)

__all__ = [
    "Accumulated",
    "Context",
    "Gated",
    "Injected",
    "LookedAhead",
    "Partitioned",
    "Plateau",
    "Rejected",
    "Skipped",
    "Transform",
    "accumulate",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "add_decayed_weights",
    "alias",
    "amsgrad",
    "apply_if_finite",
    "apply_updates",
    "asgd",
    "average_iterates",
    "chain",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "discriminative",
    "edit_injected",
    "ema",
    "flatten",
    "freeze",
    "from_torch",
    "gate",
    "hyperparameters",
    "identity",
    "inject",
    "lbfgs",
    "lion",
    "lookahead",
    "masked",
    "muon",
    "nadam",
    "nadamw",
    "named",
    "named_chain",
    "negate",
    "orthogonalize",
    "partition",
    "per_leaf",
    "radam",
    "read_injected",
    "reduce_on_plateau",
    "rmsprop",
    "rprop",
    "scale",
    "scale_by_adadelta",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_amsgrad",
    "scale_by_factored_rms",
    "scale_by_falling_rate",
    "scale_by_inverse_time",
    "scale_by_lbfgs",
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
    "sgd",
    "skip_nonfinite",
    "spread",
    "stateless",
    "step",
    "strong_wolfe",
    "to_torch",
    "trace",
    "unfreeze_gradually",
    "updates_made",
]


def __dir__() -> list[str]:
    return __all__
