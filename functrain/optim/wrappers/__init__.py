"""Transforms around transforms: which leaves they see, which batches, which updates are made, and with what numbers."""

from functrain.optim.wrappers.accumulation import Accumulated, accumulate
from functrain.optim.wrappers.caution import cautious, scale_by_caution
from functrain.optim.wrappers.discriminating import discriminative, spread
from functrain.optim.wrappers.flattening import flatten
from functrain.optim.wrappers.freezing import freeze, masked
from functrain.optim.wrappers.gating import Gated, gate, unfreeze_gradually
from functrain.optim.wrappers.injecting import Injected, edit_injected, inject, read_injected
from functrain.optim.wrappers.looking_ahead import LookedAhead, lookahead
from functrain.optim.wrappers.partitioning import Partitioned, partition
from functrain.optim.wrappers.plateau import Plateau, reduce_on_plateau
from functrain.optim.wrappers.skipping import Rejected, Skipped, apply_if_finite, skip_nonfinite

__all__ = [
    "Accumulated",
    "Gated",
    "Injected",
    "LookedAhead",
    "Partitioned",
    "Plateau",
    "Rejected",
    "Skipped",
    "accumulate",
    "apply_if_finite",
    "cautious",
    "discriminative",
    "edit_injected",
    "flatten",
    "freeze",
    "gate",
    "inject",
    "lookahead",
    "masked",
    "partition",
    "read_injected",
    "reduce_on_plateau",
    "scale_by_caution",
    "skip_nonfinite",
    "spread",
    "unfreeze_gradually",
]
