"""A training step of a ResNet-18 with batch norm (8 images of 64 pixels)."""

from functools import partial

from benchmarks.workloads._modules import CLASSES, TARGETS, TOLERANCE, UNIT, entrants, logits, pixels, transformer

__all__ = ["ENTRANTS", "TARGETS", "TOLERANCE", "UNIT"]

SIZES = {
    "depths": [2, 2, 2, 2],
    "hidden_sizes": [64, 128, 256, 512],
    "layer_type": "basic",
    "num_labels": CLASSES,
}
ENTRANTS = entrants(partial(transformer, "ResNet", "ForImageClassification", **SIZES), pixels, logits)
