"""What the backward pass of a step reads of the step: what of it is kept, and what is computed again."""

from collections.abc import Iterable
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.fx import Node

from functrain.engine.graph.aliasing import aliases
from functrain.engine.tracing.meta.geometry import is_dense

aten = torch.ops.aten
_CHEAP = frozenset(
    (
        aten.add.Tensor,
        aten.sub.Tensor,
        aten.rsub.Scalar,
        aten.mul.Tensor,
        aten.neg.default,
        aten.gt.Scalar,
        aten.ge.Scalar,
        aten.lt.Scalar,
        aten.le.Scalar,
        aten.eq.Scalar,
        aten.ne.Scalar,
        aten.logical_not.default,
        aten.bitwise_not.default,
    )
)
"""Operations that cost no more than to read what they would have put in memory."""


@attrs.frozen
class Kept:
    """How the loop back gets what it reads.

    Attributes:
        saved: values of the step that are put out by the loop.
        again: what the loop back computes: its own operations, and those of the step done again.
        read: the inputs that it reads as they are.
    """

    saved: list[Node]
    again: set[Node]
    read: set[Node]


def keep_for(results: Iterable[Node], carry: Iterable[Node], rows: Iterable[Node], cotangents: Iterable[Node]) -> Kept:
    """Return what is to be kept so that some values of a joint graph can be computed later.

    Args:
        results: those values.
        carry: inputs that are gone by then.
        rows: inputs that are others at each step, and are there then.
        cotangents: inputs that only come then.
    """
    results, carry = list(results), set(carry)
    graph = results[0].graph if results else None
    late = _depending(graph, set(cotangents))
    moving = _depending(graph, {*carry, *rows, *cotangents})
    chosen: dict[Node, str] = {}
    todo = list(results)
    while todo:
        node = todo.pop()
        if node in chosen:
            continue
        chosen[node] = how = _how(node, carry, late, moving)
        if how == "again":
            todo += node.all_input_nodes
    _prefer_cheap(graph, chosen)
    saved = [n for n in graph.nodes if chosen.get(n) == "saved"] if graph is not None else []
    return Kept(
        saved, {n for n, how in chosen.items() if how == "again"}, {n for n, h in chosen.items() if h == "read"}
    )


def _how(node: Node, carry: set[Node], late: set[Node], moving: set[Node]) -> str:
    if node.op == "placeholder":
        return "saved" if node in carry else "read"
    if node in late or node not in moving or not _is_storable(node) or _is_view(node):
        return "again"
    return "saved"


def _is_storable(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and is_dense(value) and not value.is_conj() and not value.is_neg()


def _is_view(node: Node) -> bool:
    target: Any = node.target
    return isinstance(target, torch._ops.OpOverload) and any(aliases(target))


def _prefer_cheap(graph: Any, chosen: dict[Node, str]) -> None:
    """Compute again what costs no more than to keep it, where what it needs is at hand anyway."""
    for node in graph.nodes if graph is not None else ():
        if chosen.get(node) == "saved" and node.target in _CHEAP and all(n in chosen for n in node.all_input_nodes):
            chosen[node] = "again"


def _depending(graph: Any, on: set[Node]) -> set[Node]:
    """Return the nodes that depend on some, these included."""
    dependent = set(on)
    for node in graph.nodes if graph is not None else ():
        if any(n in dependent for n in node.all_input_nodes):
            dependent.add(node)
    return dependent
