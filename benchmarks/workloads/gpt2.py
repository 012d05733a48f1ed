"""A step of GPT-2 124M (12 layers, 12 heads, width 768, context 1024, batch 8) in bfloat16 with AdamW, on CUDA.

The vocabulary of 50257 is padded to 50304, a multiple of 64. Parameters are float32, matrix products bfloat16 by
autocast. The check is the losses of the first steps.
"""

import math
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.entrant import Entrant, Target, Unavailable
from benchmarks.workloads._device import BACKENDS, DEVICE, ON_CUDA
from benchmarks.workloads._gpt import Config, functrain_entrant, module_entrant

UNIT = (1e3, "ms")
TOLERANCE = 2e-2
CONFIG, COUNT = Config(layers=12, heads=12, width=768, context=1024, vocabulary=50304, batch=8), 10

PEAK = {
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
}
"""Part of a device's name -> its bfloat16 operations a second by its data sheet, dense; the first that fits."""


def parameters(config: Config) -> int:
    """Return the number of parameters, the tied table counted once.

    >>> parameters(CONFIG)
    124475904
    """
    width = config.width
    block = (3 * width + width + 4 * width) * width + 4 * width * width + (3 + 1 + 4 + 1) * width + 4 * width
    return (config.vocabulary + config.context) * width + config.layers * block + 2 * width


def operations(config: Config) -> float:
    """Return the floating-point operations of the model for one token, forward and backward.

    Reference: Chowdhery et al., PaLM, 2022, appendix B: 6 a parameter, 12 a layer, channel and position for attention.
    """
    used = parameters(config) - config.context * config.width
    return 6 * used + 12 * config.layers * config.width * config.context


def peak(name: str) -> float:
    """Return the most operations a second of a device, NaN where it is not known."""
    return next((most for part, most in PEAK.items() if part in name), math.nan)


def _tokens(seconds: float) -> float:
    return CONFIG.batch * CONFIG.context / seconds


def _utilisation(seconds: float) -> str:
    done = _tokens(seconds) * operations(CONFIG)
    share = done / peak(torch.cuda.get_device_name(DEVICE))
    return "peak not known" if math.isnan(share) else f"{share:.1%}"


FIGURES = {
    "tokens/s": lambda seconds: f"{_tokens(seconds):,.0f}",
    "TFLOP/s": lambda seconds: f"{_tokens(seconds) * operations(CONFIG) / 1e12:.1f}",
    "model FLOP utilisation": _utilisation,
}


def _on_cuda(make: Callable[[], Entrant]) -> Callable[[], Entrant]:
    def checked() -> Entrant:
        if not ON_CUDA:
            raise Unavailable("needs a CUDA device: python -m benchmarks.gpu gpt2")
        return make()

    return checked


ENTRANTS = {
    **{
        f"functrain, {backend}": _on_cuda(partial(functrain_entrant, CONFIG, backend, COUNT, torch.bfloat16))
        for backend in BACKENDS
    },
    "PyTorch, fused AdamW": _on_cuda(partial(module_entrant, CONFIG, False, COUNT, torch.bfloat16)),
    "PyTorch, torch.compile": _on_cuda(partial(module_entrant, CONFIG, True, COUNT, torch.bfloat16)),
}

OURS = tuple(f"functrain, {backend}" for backend in BACKENDS)
TARGETS = [Target(OURS, ("PyTorch, fused AdamW", "PyTorch, torch.compile"), 1.0)]
