"""Graphs made quickly: modules whose Python code is made when somebody asks for it, and nodes without a search.

`Graph.create_node` looks through all arguments for symbolic numbers, which takes longer than all else that it does.
"""

import linecache
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.fx import Graph, GraphModule, Node, map_arg
from torch.fx._lazy_graph_module import _LazyGraphModule
from torch.fx.graph_module import _loader


class _Freed(_LazyGraphModule):
    """A module whose source goes when it goes; PyTorch keeps the source of every module that ever was (2.14)."""

    def _real_recompile(self) -> Any:
        code = super()._real_recompile()
        forward: Any = type(self).forward
        weakref.finalize(self, _gone.append, forward.__code__.co_filename).atexit = False
        return code


_gone: list[str] = []
"""The sources of modules that are gone. They are not taken away when a module goes: the collector comes at any moment,
and `linecache` breaks where its cache loses an entry while it goes through it, as it does for each traceback."""


def _forget_sources() -> None:
    while _gone:
        file = _gone.pop()
        _loader.eval_cache.pop(file, None)
        linecache.cache.pop(file, None)


@contextmanager
def forget_sources() -> Iterator[None]:
    """Have the sources of modules that are made in a block, and not called after it, go with it (PyTorch 2.11)."""
    before = set(_loader.eval_cache)
    try:
        yield
    finally:
        _gone.extend(set(_loader.eval_cache) - before)
        _forget_sources()


def graph_module(root: Any, graph: Graph) -> GraphModule:
    """Return the module of a graph, with the tensors that it holds from a module or a dict.

    >>> graph = Graph()
    >>> _ = graph.output([graph.placeholder("x")])
    >>> graph_module({}, graph)(1)
    [1]
    """
    _forget_sources()
    made = _Freed(root, graph)
    made.meta.update(getattr(root, "meta", {}))
    return made


def call_node(graph: Graph, target: Callable, args: tuple, kwargs: dict[str, Any], name: str) -> Node:
    """Add a call to a graph, and return its node.

    >>> graph = Graph()
    >>> call_node(graph, abs, (graph.placeholder("x"),), {}, "size").format_node()
    '%size : [num_users=0] = call_function[target=builtins.abs](args = (%x,), kwargs = {})'
    """
    return _fill(graph.create_node("call_function", target, (), {}, name), args, kwargs)


def copy_node(graph: Graph, node: Node, current: Callable[[Node], Any]) -> Node:
    """Add to a graph what a node of another one is, with what is known of its value, and return it.

    >>> old, new = Graph(), Graph()
    >>> x = old.placeholder("x")
    >>> copy_node(new, x, {}.get).name
    'x'
    """
    args, kwargs = map_arg(node.args, current), map_arg(node.kwargs, current)  # first: this may add nodes itself
    made = graph.create_node(node.op, node.target, (), {}, node.name)
    made.meta.update(node.meta)
    return _fill(made, args, kwargs)  # pyright: ignore


def _fill(node: Node, args: tuple, kwargs: dict[str, Any]) -> Node:
    if args or kwargs:  # what the setters of `args` and `kwargs` call; a node's __setattr__ takes as long as the rest
        node._update_args_kwargs(args, kwargs)
    return node
