"""Products of rows made before a loop: those that depend on no carry, as one product over the rows of all steps.

A recurrent layer multiplies its input by a weight at each step: few rows, for which the whole weight is read. Of all
steps at once they are one product, which is a multiple quicker. It changes how results are rounded.
"""

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from functrain.engine.graph.passes.simplifying import VIEWS, remove_dead
from functrain.engine.graph.queries import copy, outputs, placeholders
from functrain.engine.graph.scan_node import Loop, loops, value_of
from functrain.engine.tracing.abstract_tensor import abstract
from functrain.engine.tracing.lazy_module import graph_module
from functrain.engine.tracing.to_graph import trace

aten = torch.ops.aten
MOST_BYTES = 1 << 26
"""The largest product that is kept for all steps."""


def hoist(gm: GraphModule) -> None:
    """Make products of the loops of a graph before them, in place, where these are of few rows.

    >>> from functrain.engine.transforms.scanning.scans import scan
    >>> f = lambda xs, w: list(scan(lambda c, x: (c + x @ w, c.sum()), torch.zeros(2, 8), xs))
    >>> gm = trace(f, [torch.ones(5, 2, 3), torch.ones(3, 8)]).gm
    >>> hoist(gm)
    >>> [node.name for node in gm.graph.nodes if node.name.startswith(("view", "mm", "scan"))]
    ['view', 'mm', 'view_1', 'scan']
    """
    for node in loops(gm):
        kind: Any = node.target.kind  # pyright: ignore
        if (kind.length or 0) > 1 and not (kind.stops or kind.skips):
            _hoist(node)
    gm.recompile()


@attrs.frozen
class _Product:
    """A product of a row of the xs of a loop with what is the same at each step.

    Attributes:
        node: the product.
        row: the row.
        operands: the factor and what is added, inputs of the loop.
        of: (rows of all steps, operands) -> the products.
    """

    node: Node
    row: Node
    operands: list[Node]
    of: Callable[..., list[Tensor]]


def _hoist(loop: Node) -> None:
    target: Any = loop.target
    carry, xs, consts, _ = target.kind.counts
    body = graph_module(target.body, copy(target.body.graph))
    inputs = placeholders(body.graph)
    rows, fixed, outs = (
        inputs[carry : carry + xs],
        inputs[carry + xs : carry + xs + consts],
        inputs[carry + xs + consts :],
    )
    products = [p for n in body.graph.nodes if (p := _product(n, target.kind.length, rows, fixed)) is not None]
    if not products:
        return
    outside: dict[Any, Any] = dict(zip(inputs, loop.args, strict=False))
    for product in products:
        with body.graph.inserting_after(rows[-1]):
            row = body.graph.placeholder(f"product_{len(rows)}")
        row.meta["val"] = abstract(value_of(product.node), value_of(product.node).shape)
        outside[row] = _before(loop, [outside[n] for n in (product.row, *product.operands)], product.of)
        rows.append(row)
        product.node.replace_all_uses_with(row)
    remove_dead(body)
    for row in [r for r in rows if not r.users]:
        rows.remove(row)
        body.graph.erase_node(row)
    body.recompile()
    examples = [value_of(n) for n in (*inputs[:carry], *rows, *fixed, *outs)]
    kind = attrs.evolve(target.kind, counts=(carry, len(rows), consts, len(outs)))
    loop.target = Loop(body, examples, kind)  # pyright: ignore
    loop.args = tuple(outside[n] for n in (*inputs[:carry], *rows, *fixed))


def _product(node: Node, length: int, rows: list[Node], fixed: list[Node]) -> _Product | None:
    if node.target not in (aten.mm.default, aten.addmm.default) or node.kwargs:
        return None
    *added, left, right = node.args
    factor = right.args[0] if right.target is aten.t.default else right  # pyright: ignore
    row = left
    while row.target in VIEWS:  # pyright: ignore
        row = row.args[0]  # pyright: ignore
    if row not in rows or factor not in fixed or any(a not in fixed or value_of(a).dim() != 1 for a in added):  # pyright: ignore
        return None
    (count, inside), made = value_of(left).shape, value_of(node)  # pyright: ignore
    if 2 * count > made.shape[1] or length * made.numel() * made.itemsize > MOST_BYTES:
        return None

    def of(x: Tensor, w: Tensor, *added: Tensor) -> list[Tensor]:
        flat, w = x.reshape(length * count, inside), w if factor is right else w.t()
        return [(torch.addmm(added[0], flat, w) if added else flat @ w).view(length, *made.shape)]

    return _Product(node, row, [factor, *added], of)  # pyright: ignore


def _before(loop: Node, operands: list[Node], f: Callable[..., list[Tensor]]) -> Node:
    """Put the operations of a function before a loop; return the node of its result."""
    graph, part = loop.graph, trace(f, [value_of(n) for n in operands]).gm
    made = dict(zip(placeholders(part.graph), operands, strict=True))
    with graph.inserting_before(loop):
        for node in part.graph.nodes:
            if node.op == "call_function":
                made[node] = graph.node_copy(node, made.__getitem__)
    return made[outputs(part.graph)[0]]
