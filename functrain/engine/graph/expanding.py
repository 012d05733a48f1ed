"""Own operators as the tensor operations that they consist of, for what cannot run them or fuses their parts."""

from collections.abc import Callable

from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from functrain.engine.tracing.lazy_module import graph_module
from functrain.engine.tracing.places import AT
from functrain.engine.tracing.to_graph import trace
from functrain.operators import PURE


def expand(gm: GraphModule, where: Callable[[Node], bool] = lambda node: True) -> GraphModule:
    """Return a graph with functrain's own operators as the pure tensor operations that they consist of.

    Args:
        gm: a graph without writes.
        where: which of their nodes; all by default.

    >>> import torch
    >>> from functrain import random
    >>> gm = trace(lambda key: [random.bits(key, (3,))], [random.key(0)]).gm
    >>> [node.name for node in gm.graph.nodes if node.op == "call_function"]
    ['philox_draw']
    >>> bool((expand(gm)(random.key(0))[0] == gm(random.key(0))[0]).all())
    True
    """
    if not any(node.target in PURE and where(node) for node in gm.graph.nodes):
        return gm
    new, made = Graph(), {}
    parts: dict[str, object] = {}
    for node in gm.graph.nodes:
        if node.op == "output":
            new.output(map_arg(node.args[0], made.__getitem__))
        elif node.target in PURE and where(node):
            made[node] = _inline(new, node, [made[n] for n in node.all_input_nodes], parts)
        else:
            made[node] = new.node_copy(node, made.__getitem__)
    result = graph_module({**_attributes(gm), **parts}, new)  # pyright: ignore
    result.meta.update(gm.meta)
    return result


def _attributes(gm: GraphModule) -> dict[str, object]:
    return {str(n.target): getattr(gm, str(n.target)) for n in gm.graph.find_nodes(op="get_attr")}


def _inline(new: Graph, node: Node, inputs: list[Node], parts: dict[str, object]) -> Node:
    """Add the operations of an own operator to a graph, and return the node of its result."""
    nodes = node.all_input_nodes

    def parts_of(*tensors):
        stand_for = dict(zip(nodes, tensors, strict=True))
        args, kwargs = map_arg((node.args, node.kwargs), stand_for.__getitem__)
        return [PURE[node.target](*args, **kwargs)]

    body = trace(parts_of, [n.meta["val"] for n in nodes]).gm
    made = dict(zip(body.graph.find_nodes(op="placeholder"), inputs, strict=True))
    for part in body.graph.nodes:
        if part.op == "call_function":
            made[part] = new.node_copy(part, made.__getitem__)
            made[part].meta[AT] = node.meta.get(AT)
        elif part.op == "get_attr":
            made[part] = _constant(new, part, getattr(body, str(part.target)), parts)
    return made[body.graph.output_node().args[0][0]]  # pyright: ignore


def _constant(new: Graph, part: Node, value: object, parts: dict[str, object]) -> Node:
    name = f"_part_{len(parts)}"
    parts[name] = value
    made = new.get_attr(name)
    made.meta["val"] = part.meta["val"]
    return made
