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
from functrain.optim.optimizers import adam, adamw, lion, sgd
from functrain.optim.primitives import (
    add_decayed_weights,
    clip_by_global_norm,
    negate,
    scale,
    scale_by_adam,
    scale_by_learning_rate,
    scale_by_lion,
    trace,
)
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
    injected,
    lookahead,
    masked,
    partition,
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
    "adam",
    "adamw",
    "add_decayed_weights",
    "alias",
    "apply_if_finite",
    "apply_updates",
    "chain",
    "clip_by_global_norm",
    "discriminative",
    "edit_injected",
    "flatten",
    "freeze",
    "from_torch",
    "gate",
    "hyperparameters",
    "identity",
    "inject",
    "injected",
    "lion",
    "lookahead",
    "masked",
    "named",
    "named_chain",
    "negate",
    "partition",
    "per_leaf",
    "reduce_on_plateau",
    "scale",
    "scale_by_adam",
    "scale_by_learning_rate",
    "scale_by_lion",
    "sgd",
    "skip_nonfinite",
    "spread",
    "stateless",
    "step",
    "to_torch",
    "trace",
    "unfreeze_gradually",
    "updates_made",
]


def __dir__() -> list[str]:
    return __all__
