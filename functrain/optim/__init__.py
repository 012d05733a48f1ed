"""Optimizers as pure functions: transforms of gradients that compose.

A `Transform` is a pair of functions: `init(params)` gives its state, `update(updates, state, params, context)` turns
gradients into updates and gives the next state. `chain` composes transforms; a named optimizer is one short chain.

>>> import torch
>>> optimizer = chain(clip_by_global_norm(1.0), trace(momentum=0.9), scale_by_learning_rate(0.1))
>>> params = {"w": torch.tensor([1.0, 2.0])}
>>> state = optimizer.init(params)
>>> updates, state = optimizer.update({"w": torch.tensor([3.0, 4.0])}, state, params, Context())
>>> apply_updates(params, updates)
{'w': tensor([0.9400, 1.9200])}
"""

from functrain.optim.accumulation import Accumulated, accumulate
from functrain.optim.groups import Grouped, by_path
from functrain.optim.optimizers import adam, adamw, sgd
from functrain.optim.primitives import (
    AdamState,
    TraceState,
    add_decayed_weights,
    clip_by_global_norm,
    scale,
    scale_by_adam,
    scale_by_learning_rate,
    trace,
)
from functrain.optim.skipping import Skipped, skip_nonfinite
from functrain.optim.transform import (
    Context,
    Transform,
    apply_updates,
    chain,
    hyperparameters,
    identity,
    named,
    stateless,
    updates_made,
)

__all__ = [
    "Accumulated",
    "AdamState",
    "Context",
    "Grouped",
    "Skipped",
    "TraceState",
    "Transform",
    "accumulate",
    "adam",
    "adamw",
    "add_decayed_weights",
    "apply_updates",
    "by_path",
    "chain",
    "clip_by_global_norm",
    "hyperparameters",
    "identity",
    "named",
    "scale",
    "scale_by_adam",
    "scale_by_learning_rate",
    "sgd",
    "skip_nonfinite",
    "stateless",
    "trace",
    "updates_made",
]
