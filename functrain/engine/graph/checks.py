"""Checks of values that would go away with what nobody reads: eager execution makes them all the same.

An operation whose result is dead leaves an assertion of its limits behind, unless what is left makes that check anyhow.
"""

import operator
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

from functrain.engine.graph.limits import Limits, limits_of, refuses_more
from functrain.engine.tracing.abstract_tensor import Abstract
from functrain.engine.tracing.meta.inference import infer

aten = torch.ops.aten


def is_check(target: Any) -> bool:
    """Return whether an operation returns nothing: an assertion, which stays though nobody reads it.

    >>> is_check(aten._assert_async.msg), is_check(aten.mul.Tensor)
    (True, False)
    """
    return isinstance(target, torch._ops.OpOverload) and not target._schema.returns


def holds_checks(target: Any) -> bool:
    """Return whether the steps of a loop check values, so that it runs though nobody reads what it returns.

    >>> holds_checks(aten.mul.Tensor)
    False
    """
    graphs = () if isinstance(target, torch._ops.OpOverload) else getattr(target, "graphs", list)()
    inside = [node for gm in graphs for node in gm.graph.nodes if node.op == "call_function"]
    return any(is_check(node.target) or refuses(node) or holds_checks(node.target) for node in inside)


def refuses(node: Node) -> bool:
    """Return whether the kernel of a node refuses some values."""
    return bool(limits_of(node)) or refuses_more(node)


class Checks:
    """The checks that a graph makes: those of its live operations, and those that are kept for dead ones."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._made = [one for node in _live(graph) for one in limits_of(node)]

    def keep(self, node: Node) -> None:
        """Put the checks of a node that nobody reads in its place; it can be removed then, if nobody reads it now."""
        with self._graph.inserting_before(node):
            for limits in limits_of(node):
                if not any(one.holds(limits) for one in self._made):
                    self._made.append(limits)
                    self._assert(within(self._graph, limits), limits.words, node)
        if refuses_more(node):
            with self._graph.inserting_before(node.next):
                self._assert(_anything(self._graph, node), f"{node.target} refused its arguments", node)

    def _assert(self, condition: Node, words: str, node: Node) -> None:
        made = self._graph.call_function(aten._assert_async.msg, (condition, words))
        made.meta = {**node.meta, "val": None}


def _live(graph: Graph) -> set[Node]:
    """Return the nodes that the results of a graph, or its assertions and loops with checks, stand on."""
    waiting = [n for n in graph.nodes if n.op == "output" or is_check(n.target) or holds_checks(n.target)]
    live = set(waiting)
    while waiting:
        for node in waiting.pop().all_input_nodes:
            if node not in live:
                live.add(node)
                waiting.append(node)
    return live


def within(graph: Graph, limits: Limits) -> Node:
    """Add to a graph the condition that all elements of a value pass limits."""
    value = limits.value
    if limits.low is None:
        return _make(graph, aten.all.default, value)
    low, high = _in_range(value, limits.low), _in_range(value, limits.high)
    passes = _make(graph, aten.eq.Tensor, value, _make(graph, aten.clamp.default, value, low, high))
    if limits.besides is not None and _in_range(value, limits.besides) == limits.besides:
        passes = _make(graph, aten.bitwise_or.Tensor, passes, _make(graph, aten.eq.Scalar, value, limits.besides))
    return _make(graph, aten.all.default, passes)


def _in_range(value: Node, number: Any) -> Any:
    """Return the number, or the nearest of the dtype of a value: one beyond it would be taken modulo its range."""
    dtype = value.meta["val"].dtype
    if dtype.is_floating_point or dtype.is_complex or dtype is torch.bool:
        return number
    return min(max(number, torch.iinfo(dtype).min), torch.iinfo(dtype).max)


def _anything(graph: Graph, node: Node) -> Node:
    """Add to a graph a condition that is always true, so that no compiler can know it, and stands on a node."""
    value: Any = node.meta["val"]
    if not isinstance(value, Tensor):
        k = next(k for k, one in enumerate(value) if isinstance(one, Tensor) and one.numel())
        node = graph.call_function(operator.getitem, (node, k))
        node.meta["val"] = value[k]
    same, other = (_make(graph, compare, node, node) for compare in (aten.eq.Tensor, aten.ne.Tensor))
    return _make(graph, aten.all.default, _make(graph, aten.bitwise_or.Tensor, same, other))


def _make(graph: Graph, target: Any, *args: Any) -> Node:
    node = graph.call_function(target, args)
    values = torch.fx.map_arg(args, lambda n: n.meta["val"])
    device = next(one.meta["val"].device for one in args if isinstance(one, Node))
    node.meta["val"] = Abstract(infer(target, values, {}, on_meta=False), device)
    return node
