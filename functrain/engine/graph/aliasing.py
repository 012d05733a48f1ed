"""Which values of a graph share memory: derived here alone, from the operations of the graph as it stands.

What an operation's schema says of its results, with the table of what schemas hide; and what the nodes that are no
PyTorch operations say: a scan, a write made a value and functrain's own operators return new memory.
"""

import operator
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

from functrain.engine.tracing.operation_facts import argument
from functrain.engine.tracing.undeclared import UNDECLARED_ALIASES
from functrain.operators import KERNELS


class Aliasing:
    """The values of a graph in groups: what may share memory is in one.

    >>> from functrain.engine.tracing.to_graph import trace
    >>> graph = trace(lambda x: [x.t(), x + 1], [torch.ones(2, 2)]).gm.graph
    >>> x, transposed, added, _ = graph.nodes
    >>> aliasing = Aliasing(graph)
    >>> aliasing.memory(x) is aliasing.memory(transposed), aliasing.memory(x) is aliasing.memory(added)
    (True, False)
    """

    def __init__(self, graph: Graph) -> None:
        self._parent: dict[Node, Node] = {}
        constants: dict[int, Node] = {}
        for node in graph.nodes:
            self._parent[node] = node
            for other in _sources(node):
                self.join(node, other)
            if node.op == "get_attr":
                self._join_constants(node, constants)

    def memory(self, node: Node) -> Node:
        """Return what stands for the group of a value."""
        root = node
        while self._parent[root] is not root:
            root = self._parent[root]
        while self._parent[node] is not root:
            self._parent[node], node = root, self._parent[node]
        return root

    def join(self, node: Node, other: Node) -> None:
        """Note that a value shares the memory of another, whose group keeps what stands for it."""
        self._parent[self.memory(node)] = self.memory(other)

    def _join_constants(self, node: Node, constants: dict[int, Node]) -> None:
        value = getattr(node.graph.owning_module, str(node.target), None)
        if isinstance(value, Tensor) and value.layout is torch.strided and not hasattr(value, "recording"):
            self.join(node, constants.setdefault(value.untyped_storage()._cdata, node))


def laid_out_by_storage(graph: Graph, aliasing: Aliasing) -> set[Node]:
    """Return the memories whose offsets and extent matter, as a strided view counts from the beginning of the storage.

    >>> from functrain.engine.tracing.to_graph import trace
    >>> graph = trace(lambda x: [x.clone().as_strided((2,), (1,)), x + 1], [torch.ones(2)]).gm.graph
    >>> [node.name for node in laid_out_by_storage(graph, Aliasing(graph))]
    ['clone']
    """
    strided = (n for n in graph.nodes if n.op == "call_function" and n.target in _STRIDED)
    return {aliasing.memory(n.args[0]) for n in strided}  # pyright: ignore


aten = torch.ops.aten
_STRIDED = (
    aten.as_strided.default,
    aten.as_strided_copy.default,
    aten.as_strided_scatter.default,
    aten.view.dtype,  # an element of another size wants its offset aligned
    aten.view_as_complex.default,
)


def _sources(node: Node) -> Iterator[Node]:
    """Yield the nodes whose memory the result of a node may share."""
    target: Any = node.target
    if node.op != "call_function" or target in KERNELS or hasattr(target, "returns_new_memory"):
        return
    if target is operator.getitem:
        yield from _sources_of_item(*node.args)  # pyright: ignore
    elif isinstance(target, torch._ops.OpOverload):
        for positions in aliases(target):
            yield from _arguments(node, positions)
    else:
        yield from node.all_input_nodes  # nothing is sure


def _sources_of_item(node: Node, k: int) -> Iterator[Node]:
    # A list of views is one group with what they are views of; several results have memory of their own each.
    target: Any = node.target
    if not isinstance(target, torch._ops.OpOverload):
        if not hasattr(target, "returns_new_memory"):
            yield node
        return
    per_result = aliases(target)
    if len(target._schema.returns) == 1:
        if per_result[0]:
            yield node
        return
    yield from _arguments(node, per_result[k])
    if any(k in pair for pair in UNDECLARED_ALIASES.get(str(target), ())):
        yield node  # some of its results share memory with each other


def _arguments(node: Node, positions: tuple[int, ...]) -> Iterator[Node]:
    for k in positions:
        operands: list[Node] = []
        torch.fx.map_arg(argument(node.target, k, node.args, node.kwargs), operands.append)  # pyright: ignore
        yield from operands


@cache
def aliases(func: Any) -> tuple[tuple[int, ...], ...]:
    """Return for each result of an operation the positions of the arguments whose memory it may share.

    >>> aliases(torch.ops.aten.t.default), aliases(torch.ops.aten.add.Tensor)
    (((0,),), ((),))
    """
    arguments = func._schema.arguments
    hidden = UNDECLARED_ALIASES.get(str(func), ())
    return tuple(
        tuple(k for k, a in enumerate(arguments) if _shares(a.alias_info, r.alias_info) or (a.name, i) in hidden)
        for i, r in enumerate(func._schema.returns)
    )


def _shares(of_argument: Any, of_result: Any) -> bool:
    if of_argument is None or of_result is None:
        return False
    of_list = not of_result.before_set  # the schema of a list of views names no set for it
    return of_list or bool(of_argument.before_set & of_result.before_set)
