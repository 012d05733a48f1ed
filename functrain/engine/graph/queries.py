"""What is asked of an `fx` graph: its inputs, its results, a copy."""

from typing import Any

from torch.fx import Graph, GraphModule, Node


def placeholders(graph: Graph) -> list[Node]:
    """Return the nodes of the inputs of a graph.

    >>> from torch.fx import symbolic_trace
    >>> placeholders(symbolic_trace(lambda x: x + 1).graph)
    [x]
    """
    return [node for node in graph.nodes if node.op == "placeholder"]


def output_of(graph: Graph) -> Any:
    """Return the output node of a graph.

    >>> from torch.fx import symbolic_trace
    >>> output_of(symbolic_trace(lambda x: x + 1).graph)
    output
    """
    return next(node for node in reversed(graph.nodes) if node.op == "output")


def outputs(graph: Graph) -> list[Any]:
    """Return the nodes of the results of a graph that returns a list.

    >>> from torch.fx import symbolic_trace
    >>> outputs(symbolic_trace(lambda x: [x + 1, x]).graph)
    [add, x]
    """
    return list(output_of(graph).args[0])


def attribute(gm: GraphModule, name: str) -> Any:
    """Return what a module holds under a dotted name.

    >>> from torch.fx import symbolic_trace
    >>> attribute(symbolic_trace(lambda x: x), "graph.owning_module").training
    True
    """
    value: Any = gm
    for part in name.split("."):
        value = getattr(value, part)
    return value


def copy(graph: Graph) -> Graph:
    """Return a copy of a graph, with what is known of its values.

    >>> from torch.fx import symbolic_trace
    >>> len(copy(symbolic_trace(lambda x: x + 1).graph).nodes)
    3
    """
    new = Graph()
    new.output(new.graph_copy(graph, {}))
    return new


def replace(node: Node, other: Node) -> None:
    """Put a node in the place of another, which is removed.

    >>> from torch.fx import symbolic_trace
    >>> gm = symbolic_trace(lambda x: x + 1)
    >>> replace(output_of(gm.graph).args[0], placeholders(gm.graph)[0])
    >>> output_of(gm.graph).args[0]
    x
    """
    node.replace_all_uses_with(other)
    node.graph.erase_node(node)
