"""A training step of a DenseNet-121 with batch norm (8 images of 64 pixels)."""

from benchmarks.workloads._modules import TARGETS, TOLERANCE, UNIT, entrants, images
from benchmarks.workloads._vision import densenet

__all__ = ["ENTRANTS", "TARGETS", "TOLERANCE", "UNIT"]

ENTRANTS = entrants(densenet, images)
