"""Where the workloads run, and what differs there: the backends, how to wait, and how far sums may lie apart."""

import os
from types import ModuleType
from typing import Any

import torch

from benchmarks.entrant import DEVICE_VARIABLE, Unavailable

DEVICE = torch.device(os.environ.get(DEVICE_VARIABLE, "cpu"))
ON_CUDA = DEVICE.type == "cuda"
BACKENDS = ("aten", "cudagraph", "inductor") if ON_CUDA else ("aten", "inductor")

if ON_CUDA:
    # What JAX does unless told otherwise; the same for all.
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True


def tolerance(on_cpu: float) -> float:
    """Return how far the numbers of entrants may lie apart: TensorFloat-32 has 10 bits."""
    return max(on_cpu, 2e-2) if ON_CUDA else on_cpu


def synchronise(_last: Any = None) -> None:
    """Wait until the device has done all that it was given."""
    if ON_CUDA:
        torch.cuda.synchronize(DEVICE)


def jax_modules() -> tuple[ModuleType, ModuleType, ModuleType]:
    """Return (jax, jax.numpy, optax) on the same kind of device, or raise `Unavailable`."""
    try:
        import jax
        import jax.numpy as jnp
        import optax
    except ImportError:
        raise Unavailable("jax and optax are not installed: pip install functrain[bench]") from None
    if ON_CUDA:
        if jax.default_backend() != "gpu":
            raise Unavailable("this JAX sees no GPU: pip install 'jax[cuda13]'")
        jax.config.update("jax_default_matmul_precision", "tensorfloat32")
    return jax, jnp, optax
