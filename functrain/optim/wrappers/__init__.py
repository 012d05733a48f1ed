"""Transforms around transforms: which leaves they see, which batches, and which updates are made."""

from functrain.optim.wrappers.accumulation import Accumulated, accumulate
from functrain.optim.wrappers.freezing import freeze
from functrain.optim.wrappers.partitioning import Partitioned, partition
from functrain.optim.wrappers.skipping import Skipped, skip_nonfinite

__all__ = ["Accumulated", "Partitioned", "Skipped", "accumulate", "freeze", "partition", "skip_nonfinite"]
