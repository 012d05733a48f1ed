"""A step of a small GPT (4 layers, 4 heads, width 128, context 64, vocabulary 65, batch 12) with AdamW.

The check is the losses of the first steps.
"""

from functools import partial

from benchmarks.entrant import Target
from benchmarks.workloads._device import BACKENDS, tolerance
from benchmarks.workloads._gpt import Config, functrain_entrant, jax_entrant, module_entrant

UNIT = (1e3, "ms")
TOLERANCE = tolerance(1e-3)
CONFIG, COUNT = Config(layers=4, heads=4, width=128, context=64, vocabulary=65, batch=12), 10

ENTRANTS = {
    **{f"functrain, {backend}": partial(functrain_entrant, CONFIG, backend, COUNT) for backend in BACKENDS},
    "PyTorch, fused AdamW": partial(module_entrant, CONFIG, False, COUNT),
    "PyTorch, torch.compile": partial(module_entrant, CONFIG, True, COUNT),
    "JAX": partial(jax_entrant, CONFIG, COUNT),
}

OURS = tuple(f"functrain, {backend}" for backend in BACKENDS)
TARGETS = [Target(OURS, ("PyTorch, fused AdamW", "PyTorch, torch.compile"), 1.0), Target(OURS, "JAX", 0.6)]
