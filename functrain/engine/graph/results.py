"""The results of a graph: which memory they share with its inputs and with each other, which no pass may change."""

from collections.abc import Iterable

import attrs
import torch
from torch.fx import Graph, Node

from functrain.engine.graph.aliasing import Aliasing
from functrain.engine.graph.queries import output_of, outputs
from functrain.engine.tracing.meta.geometry import is_dense

aten = torch.ops.aten


@attrs.frozen
class Shared:
    """What the memory of a result is that of, besides.

    Attributes:
        inputs: the names of inputs and constants.
        results: the positions of other results.
    """

    inputs: frozenset[str]
    results: frozenset[int]


def shared_by_results(graph: Graph) -> list[Shared]:
    """Return for each result of a graph what shares its memory.

    >>> from functrain.engine.tracing.to_graph import trace
    >>> shared_by_results(trace(lambda x: [x.t(), x + 1], [torch.ones(2, 2)]).gm.graph)[0].inputs
    frozenset({'arg_0'})
    """
    aliasing, results = Aliasing(graph), outputs(graph)
    inputs: dict[Node, set[str]] = {}
    at: dict[Node, set[int]] = {}
    for node in graph.nodes:
        if node.op in ("placeholder", "get_attr"):
            inputs.setdefault(aliasing.memory(node), set()).add(str(node.target))
    for k, node in enumerate(results):
        at.setdefault(aliasing.memory(node), set()).add(k)
    memories = [aliasing.memory(node) for node in results]
    return [Shared(frozenset(inputs.get(m, ())), frozenset(at[m] - {k})) for k, m in enumerate(memories)]


def keep_apart(graph: Graph, allowed: Iterable[Shared]) -> None:
    """Copy the results that share more memory than allowed, in place.

    A copy that a function makes is not needed for its values. But what it returns must be new: the caller may write to
    it, donate it, or keep it while the argument is donated.
    """
    output = output_of(graph)
    now, made = shared_by_results(graph), []
    done: set[int] = set()
    for k, (node, before, after) in enumerate(zip(outputs(graph), allowed, now, strict=True)):
        others = {j for j in after.results - before.results if j not in done and j < k}
        if others or not after.inputs <= before.inputs:
            with graph.inserting_before(output):
                node = _copy(graph, node)
            done.add(k)
        made.append(node)
    output.args = (made,)


def _copy(graph: Graph, node: Node) -> Node:
    value = node.meta["val"]
    if is_dense(value):
        made = graph.call_function(aten.clone.default, (node,))
    else:  # a clone would be laid out another way
        like = {"dtype": value.dtype, "device": value.device}
        empty = graph.call_function(aten.empty_strided.default, (value.shape, value.stride()), like)
        empty.meta["val"] = value
        made = graph.call_function(aten.copy.default, (empty, node))
    made.meta["val"] = value
    return made
