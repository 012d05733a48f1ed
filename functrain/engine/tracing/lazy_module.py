"""Graphs as modules whose Python code is made when somebody asks for it, which the engine mostly does not."""

import linecache
import weakref
from typing import Any

from torch.fx import Graph, GraphModule
from torch.fx._lazy_graph_module import _LazyGraphModule
from torch.fx.graph_module import _loader


class _Freed(_LazyGraphModule):
    """A module whose source goes when it goes; PyTorch keeps the source of every module that ever was (2.14)."""

    def _real_recompile(self) -> Any:
        code = super()._real_recompile()
        forward: Any = type(self).forward
        weakref.finalize(self, _forget_source, forward.__code__.co_filename).atexit = False
        return code


def _forget_source(file: str) -> None:
    _loader.eval_cache.pop(file, None)
    linecache.cache.pop(file, None)


def graph_module(root: Any, graph: Graph) -> GraphModule:
    """Return the module of a graph, with the tensors that it holds from a module or a dict.

    >>> graph = Graph()
    >>> _ = graph.output([graph.placeholder("x")])
    >>> graph_module({}, graph)(1)
    [1]
    """
    made = _Freed(root, graph)
    made.meta.update(getattr(root, "meta", {}))
    return made
