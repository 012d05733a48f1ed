"""Graphs as modules whose Python code is made when somebody asks for it, which the engine mostly does not."""

from typing import Any

from torch.fx import Graph, GraphModule
from torch.fx._lazy_graph_module import _LazyGraphModule


def graph_module(root: Any, graph: Graph) -> GraphModule:
    """Return the module of a graph, with the tensors that it holds from a module or a dict.

    >>> graph = Graph()
    >>> _ = graph.output([graph.placeholder("x")])
    >>> graph_module({}, graph)(1)
    [1]
    """
    made = _LazyGraphModule(root, graph)
    made.meta.update(getattr(root, "meta", {}))
    return made
