"""Callbacks that come with functrain, each a factory that returns a `Callback`."""

from functrain.callbacks.averaging import Averaged, apply_average, ema, swa
from functrain.callbacks.display import print_table, progress
from functrain.callbacks.recording import record
from functrain.callbacks.saving import save_checkpoints
from functrain.callbacks.stopping import early_stopping, finite, stop_on_signal

__all__ = [
    "Averaged",
    "apply_average",
    "early_stopping",
    "ema",
    "finite",
    "print_table",
    "progress",
    "record",
    "save_checkpoints",
    "stop_on_signal",
    "swa",
]


def __dir__() -> list[str]:
    return __all__
