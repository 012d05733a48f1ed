"""Losses: pure functions of (prediction, target) to one value per example or element; `weighted_mean` makes a number.

Classes are the last axis of a prediction, which holds logits: numbers of any size and sign, not probabilities.

| loss | prediction | target | values |
| --- | --- | --- | --- |
| `cross_entropy` | (n, ..., classes) | labels (n, ...), or class probabilities (n, ..., classes) | (n, ...) |
| `nll` | (n, ..., classes), log-probabilities | labels (n, ...) | (n, ...) |
| `mse`, `mae`, `binary_cross_entropy` | (n, ...) | (n, ...) | (n, ...) |

Options are keywords, so `partial(cross_entropy, label_smoothing=0.1)` is a loss as well. A loss of one's own returns
such values too, or a dict of them by name, of which "loss" trains and the others are recorded (`by_name`). Short dtypes
(float16, bfloat16) are computed in float32.
"""

from functrain.losses.classification import cross_entropy, log_softmax, logsumexp, nll
from functrain.losses.elements import binary_cross_entropy, mae, mse
from functrain.losses.reduction import by_name, mass, shares, weighted_mean

__all__ = [
    "binary_cross_entropy",
    "by_name",
    "cross_entropy",
    "log_softmax",
    "logsumexp",
    "mae",
    "mass",
    "mse",
    "nll",
    "shares",
    "weighted_mean",
]


def __dir__() -> list[str]:
    return __all__
