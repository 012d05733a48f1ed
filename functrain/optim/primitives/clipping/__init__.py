"""Shortening what is too long, and removing what is no number."""

from functrain.optim.primitives.clipping.norms import clip_by_block_norm, clip_by_block_rms, clip_by_global_norm
from functrain.optim.primitives.clipping.units import adaptive_grad_clip, clip_by_unit_norm
from functrain.optim.primitives.clipping.values import clip, zero_nans

__all__ = [
    "adaptive_grad_clip",
    "clip",
    "clip_by_block_norm",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "clip_by_unit_norm",
    "zero_nans",
]
