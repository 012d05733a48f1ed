"""A training step of a ViT with dropout (6 layers of width 192, 8 images of 64 pixels in patches of 8)."""

from functools import partial

from benchmarks.workloads._modules import (
    CLASSES,
    IMAGE,
    TARGETS,
    TOLERANCE,
    UNIT,
    entrants,
    logits,
    pixels,
    transformer,
)

__all__ = ["ENTRANTS", "TARGETS", "TOLERANCE", "UNIT"]

SIZES = {
    "hidden_size": 192,
    "num_hidden_layers": 6,
    "num_attention_heads": 3,
    "intermediate_size": 768,
    "image_size": IMAGE,
    "patch_size": 8,
    "hidden_dropout_prob": 0.1,
    "num_labels": CLASSES,
}
ENTRANTS = entrants(partial(transformer, "ViT", "ForImageClassification", **SIZES), pixels, logits)
