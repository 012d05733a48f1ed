"""An update by SGD with momentum of a tree of 200 leaves and 25 million numbers.

The check is the sums of squares of eight leaves after two updates.
"""

from functools import partial

import torch

from benchmarks.entrant import Target
from benchmarks.workloads.optimizers._updates import functrain, pytorch
from functrain import optim

UNIT = (1e3, "ms")
TOLERANCE = 1e-5
SHAPES: list[tuple[int, ...]] = [(250, 500)] * 200


def _theirs(options, params):
    return torch.optim.SGD(params, lr=1e-3, momentum=0.9, **options)


ENTRANTS = {
    "functrain, jit": partial(functrain, partial(optim.sgd, 1e-3, momentum=0.9), SHAPES, 3, True),
    "functrain, eager": partial(functrain, partial(optim.sgd, 1e-3, momentum=0.9), SHAPES, 3, False),
    "PyTorch, fused": partial(pytorch, partial(_theirs, {"fused": True}), SHAPES, 3),
    "PyTorch, foreach": partial(pytorch, partial(_theirs, {"foreach": True}), SHAPES, 3),
}

TARGETS = [Target("functrain, jit", "PyTorch, fused", 1.0), Target("functrain, eager", "PyTorch, foreach", 1.3)]
