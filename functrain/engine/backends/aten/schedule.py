"""The order in which the operations of a graph run, and which of them are called together.

The order of a trace computes all gradients, and then walks over the parameters once for each operation of the
optimizer. Here the work of the optimizer on a large parameter follows its gradient at once, in the parameter's own
memory; and the operations on small ones, where calling costs more than computing, are grouped into one call.
"""

from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.engine.graph.aliasing import Aliasing
from functrain.engine.graph.passes.simplifying import GROUPED
from functrain.engine.graph.queries import is_item, items_of, outputs
from functrain.engine.tracing.meta.geometry import same_layout
from functrain.operators import OVERWRITING

aten = torch.ops.aten

_LISTS = """
    abs.default add.Tensor addcdiv.default addcmul.default div.Tensor exp.default lerp.Scalar mul.Tensor
    neg.default pow.Tensor_Scalar reciprocal.default rsqrt.default sign.default sqrt.default sub.Tensor
"""


def operation(name: str) -> Any:
    """Return an operation by its name and overload.

    >>> operation("add.Tensor") is torch.ops.aten.add.Tensor
    True
    """
    packet, overload = name.split(".")
    return getattr(getattr(aten, packet), overload)


FOREACH = {operation(name): "_foreach_" + name.split(".")[0] for name in _LISTS.split()}
"""Operation -> the one that does it to lists of tensors."""

_TAKES_SCALAR = (aten.add.Tensor, aten.mul.Tensor, aten.div.Tensor)
"""Operations on lists of tensors that take one scalar tensor for all."""
GROUP_BYTES = 1 << 26
"""The largest group elsewhere, which bounds the memory of intermediate results."""


@attrs.frozen
class Group:
    """Operations that are called at once: one, or several of a kind grouped into one call."""

    nodes: tuple[Any, ...]
    in_place: tuple[int, ...] | None = None
    """For each node the position of the argument that receives the result, or for a write made a value the positions of
    the memories that it changes without a copy; None when they make new tensors."""


def steps_of(graph: Any, target: dict[Any, Any], aliasing: Aliasing) -> list[Group]:
    """Return the steps of a graph in order.

    Args:
        graph: without writes.
        target: donated input -> the result that goes into its memory.
        aliasing: what shares memory.
    """
    return _group(_order(graph, target, aliasing))


def is_pointwise(node: Any) -> bool:
    """Return whether a node computes each element from one element of each argument."""
    return node.op == "call_function" and torch.Tag.pointwise in getattr(node.target, "tags", ())


def _may_wait(node: Any) -> bool:
    """Return whether a node is of the kind that an optimizer's work is made of: it may wait for others."""
    if node.target in OVERWRITING or (is_item(node) and node.args[0].target in OVERWRITING):
        return True
    adds_product = node.target is aten.addmm.default and same_layout(node.args[0].meta.get("val"), node.meta.get("val"))
    return is_pointwise(node) or adds_product


def _order(graph: Any, target: dict[Any, Any], aliasing: Aliasing) -> list[Any]:
    """Return the operations, those of the optimizer (the tail) as soon as what they need is there."""
    nodes = [n for n in graph.nodes if n.op == "call_function"]
    tail = _tail(nodes)
    body = [n for n in nodes if n not in tail]
    ends = [n for n in dict.fromkeys(outputs(graph)) if n in tail]
    after = _earliest(nodes, tail, {n: k for k, n in enumerate(body)}, target, aliasing)
    early, late = _merge(body, tail, sorted(ends, key=after), _small_cones(nodes, tail, ends), after)
    # A large tail may need a value that a small one computes: such a value is done where it is needed.
    return _topological([*early, *late, *nodes])


def _tail(nodes: list[Any]) -> set[Any]:
    """Return the operations that may wait, of which only such ones and the results need anything."""
    tail: set[Any] = set()
    for node in reversed(nodes):
        if _may_wait(node) and all(u.op == "output" or u in tail for u in node.users):
            tail.add(node)
    return tail


def _earliest(
    nodes: list[Any], tail: set[Any], position: dict[Any, int], target: dict[Any, Any], aliasing: Aliasing
) -> Callable[[Any], int]:
    """Return what says of a result in the tail after which position of the others it can be done, -1 at once.

    That is where what it needs is there, and where its memory, if that is a donated input's, is read no more.
    """
    input_of = {node: i for i, node in target.items()}

    def last_reader(node: Any) -> int:
        return max([position[u] for u in _readers(input_of.get(node), position, aliasing)], default=-1)

    ready = _ready(nodes, tail, position, last_reader)
    return cache(lambda end: max(ready[end], last_reader(end)))


def _small_cones(nodes: list[Any], tail: set[Any], ends: list[Any]) -> set[Any]:
    """Return what is small of the tail, with all that it needs: it comes last, all together, so that it is grouped."""
    needs_small, small = _all_small(nodes, tail), set()
    for end in ends:
        if end in needs_small:
            small.update(_cone(end, tail, small))
    return small


def _merge(
    body: list[Any], tail: set[Any], ends: list[Any], small: set[Any], after: Callable[[Any], int]
) -> tuple[list[Any], list[Any]]:
    """Return the body, with the cone of each of these ends where it can be done, and apart from it what is small."""
    order, late, done, waiting = [], [], set(), deque(ends)
    for k, nodes in enumerate([[], *([n] for n in body)], -1):
        order += nodes
        while waiting and after(waiting[0]) <= k:
            for node in _cone(waiting.popleft(), tail, done):
                done.add(node)
                (late if node in small else order).append(node)
    return order, late


def _ready(
    nodes: list[Any], tail: set[Any], position: dict[Any, int], last_reader: Callable[[Any], int]
) -> dict[Any, int]:
    """Return for each node of the tail the last of the others that must be done before it, -1 for none.

    An operator that makes several results at once writes over the inputs of all of them.
    """
    ready: dict[Any, int] = {}
    for node in nodes:
        if node in tail:
            needed = [ready.get(a, position.get(a, -1)) for a in node.all_input_nodes]
            written = items_of(node).values() if node.target in OVERWRITING else ()
            ready[node] = max([*needed, *map(last_reader, written)], default=-1)
    return ready


def _all_small(nodes: list[Any], tail: set[Any]) -> set[Any]:
    """Return the nodes of the tail that are small, as all of the tail that they need."""
    small: set[Any] = set()
    for node in nodes:
        if node in tail and _groups(node) and all(a in small for a in node.all_input_nodes if a in tail):
            small.add(node)
    return small


def _readers(node: Any, position: dict[Any, int], aliasing: Aliasing) -> list[Any]:
    """Return the operations that read an input, also through views of it."""
    if node is None:
        return []
    users, waiting, memory = [], [node], aliasing.memory(node)
    while waiting:
        for user in waiting.pop().users:
            users.append(user)
            if user.op == "call_function" and aliasing.memory(user) is memory:
                waiting.append(user)
    return [n for n in users if n in position]


def _cone(end: Any, tail: set[Any], without: set[Any]) -> list[Any]:
    """Return what of the tail a node needs, and the node, in order, without what is there with all that it needs."""
    needed: dict[Any, None] = {}
    stack = [(end, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            needed[node] = None
        elif node in tail and node not in needed and node not in without:
            stack.append((node, True))
            stack.extend((a, False) for a in reversed(node.all_input_nodes))
    return list(needed)


def _topological(nodes: list[Any]) -> list[Any]:
    members, order, done = set(nodes), [], set()
    for start in nodes:
        stack = [(start, False)]
        while stack:
            node, ready = stack.pop()
            if ready:
                if node not in done:
                    done.add(node)
                    order.append(node)
            elif node not in done:
                stack.append((node, True))
                stack.extend((a, False) for a in reversed(node.all_input_nodes) if a in members and a not in done)
    return order


def _groups(node: Any) -> bool:
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return False
    return value.numel() <= GROUPED if value.device.type == "cpu" else value.numel() * value.itemsize <= GROUP_BYTES


def _group(order: list[Any]) -> list[Group]:
    """Return the steps: at the end of the order, operations of one kind and of one height are called together."""
    first = len(order)
    while first and is_pointwise(order[first - 1]) and _groups(order[first - 1]):
        first -= 1
    head, last = order[:first], order[first:]
    inside = set(last)
    height: dict[Any, int] = {}
    for node in reversed(last):
        height[node] = 1 + max((height[u] for u in node.users if u in inside), default=-1)
    groups: dict[tuple, list[Any]] = {}
    for node in last:
        kind = _kind(node)
        groups.setdefault((-height[node], kind if kind is not None else node), []).append(node)
    steps = [Group((node,)) for node in head]
    for _, nodes in sorted(groups.items(), key=lambda item: item[0][0]):
        for part in _bound(nodes):
            steps.append(Group(tuple(part)))
    return steps


def _bound(nodes: list[Any]) -> list[list[Any]]:
    if nodes[0].meta["val"].device.type == "cpu" or len(nodes) == 1:
        return [nodes]
    parts, size = [[]], 0
    for node in nodes:
        more = node.meta["val"].numel() * node.meta["val"].itemsize
        if parts[-1] and size + more > GROUP_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(node)
        size += more
    return parts


def _kind(node: Any) -> tuple | None:
    """Return what nodes of one group have in common, or None for a node that cannot be grouped."""
    if node.target not in FOREACH:
        return None
    value = node.meta["val"]
    if not value.is_floating_point() or not node.args or not isinstance(node.args[0], torch.fx.Node):
        return None
    parts: list[Any] = [node.target, value.dtype, value.device]
    for k, a in enumerate(node.args):
        if not isinstance(a, torch.fx.Node):
            parts.append((k, type(a), repr(a)))
        elif a.meta["val"].shape == value.shape and a.meta["val"].dtype == value.dtype:
            parts.append("each")
        elif k == 1 and _scalar_operand(node, a):
            parts.append(a)
        else:
            return None
    if node.kwargs and (len(node.args) < 2 or not isinstance(node.args[1], torch.fx.Node) or parts[4] != "each"):
        return None
    return (*parts, tuple((k, repr(v)) for k, v in sorted(node.kwargs.items())))


def _scalar_operand(node: Any, operand: Any) -> bool:
    """Return whether one scalar tensor can be the second argument for the whole group."""
    value, mine = operand.meta["val"], node.meta["val"]
    if value.dim() != 0 or mine.dim() == 0 or value.device != mine.device or node.target not in _TAKES_SCALAR:
        return False
    # A scalar of float64 promotes no array; elsewhere than on the CPU one kernel does the group, and wants one dtype.
    return value.dtype == mine.dtype or (mine.device.type == "cpu" and value.is_floating_point())
