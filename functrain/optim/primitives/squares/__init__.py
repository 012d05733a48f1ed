"""The gradient divided by the size that it usually has: means and sums of squares, of elements, rows and axes."""

from functrain.optim.primitives.squares.covers import scale_by_sm3
from functrain.optim.primitives.squares.factored import (
    scale_by_factored_rms,
    scale_by_param_rms,
    scale_by_relative_step,
)
from functrain.optim.primitives.squares.means import scale_by_adadelta, scale_by_rms, scale_by_rss, scale_by_stddev

__all__ = [
    "scale_by_adadelta",
    "scale_by_factored_rms",
    "scale_by_param_rms",
    "scale_by_relative_step",
    "scale_by_rms",
    "scale_by_rss",
    "scale_by_sm3",
    "scale_by_stddev",
]
