"""An update of a tree of 8 leaves and 40 thousand numbers, where what is called costs more than what is computed.

The check is the sums of squares of all leaves after two updates by AdamW, as far as all entrants do the same.
"""

from functools import partial

import torch

from benchmarks.entrant import Target
from benchmarks.workloads.optimizers._updates import functrain, pytorch
from functrain import optim

UNIT = (1e6, "us")
TOLERANCE = 1e-5
SHAPES: list[tuple[int, ...]] = [(64, 144), (64,), (64, 64), (64,), (10, 64), (10,), (160, 160), (160,)]


def _theirs(options, params):
    return torch.optim.AdamW(params, lr=1e-3, **options)


ENTRANTS = {
    "functrain, jit": partial(functrain, partial(optim.adamw, 1e-3), SHAPES, 300, True),
    "functrain, eager": partial(functrain, partial(optim.adamw, 1e-3), SHAPES, 300, False),
    "PyTorch, fused": partial(pytorch, partial(_theirs, {"fused": True}), SHAPES, 300),
    "PyTorch, foreach": partial(pytorch, partial(_theirs, {"foreach": True}), SHAPES, 300),
}

TARGETS = [Target("functrain, jit", "PyTorch, fused", 1.0), Target("functrain, eager", "PyTorch, foreach", 1.3)]
