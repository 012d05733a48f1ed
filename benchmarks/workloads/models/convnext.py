"""A training step of a ConvNeXt (6 blocks of widths 64 to 256, 8 images of 64 pixels)."""

from functools import partial

from benchmarks.workloads._modules import CLASSES, TARGETS, TOLERANCE, UNIT, entrants, logits, pixels, transformer

__all__ = ["ENTRANTS", "TARGETS", "TOLERANCE", "UNIT"]

SIZES = {"depths": [2, 2, 2], "hidden_sizes": [64, 128, 256], "num_stages": 3, "num_labels": CLASSES}
ENTRANTS = entrants(partial(transformer, "ConvNext", "ForImageClassification", **SIZES), pixels, logits)
