"""An update by Muon of 4 matrices, of 128 x 128 to 512 x 128, as a layer of a small transformer has them.

The check is the sums of squares of all leaves after two updates; the iteration is in bfloat16.
"""

from functools import partial

import torch

from benchmarks.entrant import Entrant, Target, Unavailable
from benchmarks.workloads.optimizers._updates import functrain, pytorch
from functrain import optim

UNIT = (1e3, "ms")
TOLERANCE = 1e-3
SHAPES: list[tuple[int, ...]] = [(128, 128), (384, 128), (128, 512), (512, 128)]


def _theirs() -> Entrant:
    if not hasattr(torch.optim, "Muon"):
        raise Unavailable("this PyTorch has no Muon")
    return pytorch(lambda params: torch.optim.Muon(params, lr=1e-3), SHAPES, 10)


ENTRANTS = {
    "functrain, jit": partial(functrain, partial(optim.muon, 1e-3), SHAPES, 10, True),
    "functrain, eager": partial(functrain, partial(optim.muon, 1e-3), SHAPES, 10, False),
    "PyTorch": _theirs,
}

TARGETS = [Target("functrain, jit", "PyTorch", 1.0)]
