"""Checks of values that would go away with a forward pass that nobody reads, where a gradient alone is computed.

The kernels of these operations refuse some values, and those of their gradients do not.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Graph, Node

from functrain.engine.tracing.abstract_tensor import abstract

aten = torch.ops.aten


def _indices(graph: Graph, node: Node) -> Node:
    weight, indices = node.args[:2]
    return _all_between(graph, indices, (aten.ge.Scalar, 0), (aten.lt.Scalar, weight.meta["val"].shape[0]))  # pyright: ignore


def _probabilities(graph: Graph, node: Node) -> Node:
    return _all_between(graph, node.args[0], (aten.ge.Scalar, 0), (aten.le.Scalar, 1))


CHECKED: dict[Any, tuple[Callable[[Graph, Node], Node], str]] = {
    aten.embedding.default: (_indices, "index out of range in self"),
    aten.binary_cross_entropy.default: (_probabilities, "all elements of input should be between 0 and 1"),
}
"""Operation -> what makes the condition that its kernel checks, and what that says."""


def keep_check(node: Node) -> None:
    """Put the check of an operation in its place, before it is removed."""
    graph, (condition, words) = node.graph, CHECKED[node.target]
    with graph.inserting_before(node):
        made = graph.call_function(aten._assert_async.msg, (condition(graph, node), words))
    made.meta = {**node.meta, "val": None}


def _all_between(graph: Graph, value: Any, low: tuple[Any, Any], high: tuple[Any, Any]) -> Node:
    shape = value.meta["val"].shape
    above, below = (_make(graph, compare, (value, limit), shape) for compare, limit in (low, high))
    return _make(graph, aten.all.default, (_make(graph, aten.bitwise_and.Tensor, (above, below), shape),), ())


def _make(graph: Graph, target: Any, args: tuple, shape: Any) -> Node:
    node = graph.call_function(target, args)
    like = next(n.meta["val"] for n in args if isinstance(n, Node))
    node.meta["val"] = abstract(torch.empty(0, dtype=torch.bool, device=like.device), shape)
    return node
