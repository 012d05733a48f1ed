"""Decompositions of which the values alone are wanted: without vectors, as eager execution makes them.

Where the tensor is of a subclass, as those of a trace are, PyTorch's `svdvals` and `eigvalsh`, and what stands on them,
compute vectors too, in case somebody takes a gradient. That is another algorithm of LAPACK: slower, and with other last
digits. Of a graph that is compiled nobody takes a gradient any more.
"""

from typing import Any

import torch
from torch.fx import Graph, Node

from functrain.engine.tracing.abstract_tensor import Abstract
from functrain.engine.tracing.meta.inference import infer
from functrain.engine.tracing.operation_facts import argument
from functrain.engine.tracing.recording import VALUES_ONLY

aten = torch.ops.aten
_COMPUTES_VECTORS = 2
"""The position of the argument that says whether vectors are computed."""
_DECOMPOSITIONS = (aten._linalg_svd.default, aten._linalg_eigh.default)


def without_vectors(graph: Graph) -> None:
    """Have the decompositions of a graph whose values alone the function asked for compute these alone, in place.

    >>> from functrain.engine.tracing.to_graph import trace
    >>> graph = trace(lambda x: [torch.linalg.svdvals(x)], [torch.eye(2)]).gm.graph
    >>> without_vectors(graph)
    >>> [node.args[1:] for node in graph.nodes if node.target is aten._linalg_svd.default]
    [(False, False)]
    """
    for target in _DECOMPOSITIONS:
        for node in graph.find_nodes(op="call_function", target=target):
            if VALUES_ONLY in node.meta:
                _cut(node)


def _cut(node: Node) -> None:
    for item in [item for item in node.users if not item.users]:
        node.graph.erase_node(item)
    if len(node.users) > 1:  # somebody reads the vectors
        return
    func: Any = node.target
    before = (argument(func, k, node.args, node.kwargs) for k in range(_COMPUTES_VECTORS))
    node.args = (*before, False)  # pyright: ignore
    device = node.meta["val"][0].device
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
    node.meta["val"] = [Abstract(meta, device) for meta in infer(func, args, kwargs, on_meta=False)]
