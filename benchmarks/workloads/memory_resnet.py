"""Peak memory of a training step of ResNet-50 with AdamW, on 8 images of 64 pixels, where parameters weigh most."""

from benchmarks.workloads._device import tolerance
from benchmarks.workloads._vision_memory import TARGETS, entrants

UNIT = (1.0, "MiB")
TOLERANCE = tolerance(2e-2)
ENTRANTS = entrants("resnet")

__all__ = ["ENTRANTS", "TARGETS", "TOLERANCE", "UNIT"]
