"""Combinators: layers made of layers. Each takes layers and returns one, so they nest in any way.

The parts have names, which are the keys of the parameter dict: their position ("0", "1", ... as in
`torch.nn.Sequential`, where layers without parameters count too), the keyword they are passed by, or what `named` says.

>>> import torch
>>> from functrain import nn, random
>>> model = nn.serial(nn.dense(4), nn.relu, head=nn.dense(2))
>>> params, buffers = model.init(random.key(0), torch.zeros(1, 3))
>>> {name: list(layer) for name, layer in params.items()}
{'0': ['weight', 'bias'], 'head': ['weight', 'bias']}
"""

from functrain.nn.combinators.branches import identity, parallel, residual
from functrain.nn.combinators.composites import Children, composite
from functrain.nn.combinators.sequences import named, repeat, serial

__all__ = ["Children", "composite", "identity", "named", "parallel", "repeat", "residual", "serial"]
