"""The recorded graph, run as it was recorded: in order, each operation with its own memory, writes as writes.

No pass and no plan has touched it, so what it returns is, bit for bit, what the function returns without `jit`.
"""

from collections.abc import Callable

from torch import Tensor
from torch.fx import GraphModule

from functrain.dispatch_contexts import as_recorded


def replay(gm: GraphModule) -> Callable[[list[Tensor]], list[Tensor]]:
    """Return the function of a recorded graph, from a list of tensors to a list of tensors.

    >>> import torch
    >>> from functrain.engine.tracing.to_graph import trace
    >>> replay(trace(lambda x: [x.clone().mul_(2)], [torch.ones(2)]).gm)([torch.ones(2)])
    [tensor([2., 2.])]
    """

    def run(inputs: list[Tensor]) -> list[Tensor]:
        with as_recorded():
            return list(gm(*inputs))

    return run
