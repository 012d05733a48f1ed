"""Whether Inductor lays out what convolutions read and write with channels last, as it does by itself on a CPU.

Then their kernels need not reorder activations. But weights, which are kept with channels first, are laid out anew at
each call, and so are their gradients in an update: where images are few and small, that costs more than it saves.
"""

import contextlib

import torch
from torch.fx import Graph

aten = torch.ops.aten
_OPERANDS = {aten.convolution.default: (1, None), aten.convolution_backward.default: (2, 0)}
"""Convolution -> where in its arguments the weight stands, and what is shaped like the output: None for the result."""


def channels_as_they_are(graph: Graph) -> contextlib.AbstractContextManager:
    """Return a context in which Inductor compiles a graph, and leaves layouts as they are where that is quicker."""
    from torch._inductor import config

    if not outweighs(graph) or config.force_layout_optimization:
        return contextlib.nullcontext()
    return config.patch(layout_optimization=False)


def outweighs(graph: Graph) -> bool:
    """Return whether the convolutions of a graph have more weights than outputs, all on the CPU.

    >>> from functrain.engine.tracing.to_graph import trace
    >>> def graph(size):
    ...     image, weight = torch.ones(1, 8, size, size), torch.ones(8, 8, 3, 3)
    ...     return trace(lambda x, w: [torch.conv2d(x, w, padding=1)], [image, weight]).gm.graph
    >>> outweighs(graph(4)), outweighs(graph(16))
    (True, False)
    """
    weights = outputs = 0
    for node in graph.nodes:
        if node.target in _OPERANDS:
            at, output = _OPERANDS[node.target]
            weight, made = (n.meta["val"] for n in (node.args[at], node if output is None else node.args[output]))
            if weight.device.type != "cpu":
                return False
            weights, outputs = weights + weight.numel(), outputs + made.numel()
    return weights > outputs
