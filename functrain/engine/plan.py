"""When each operation of a graph runs, and in whose memory it puts its result.

The order of a trace computes all gradients, and then walks over the parameters once for each operation of the
optimizer. Here the work of the optimizer on a large parameter follows its gradient at once, in the parameter's own
memory; and the operations on small ones, where calling costs more than computing, are grouped into one call.
"""

from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.engine.abstract import storage_of
from functrain.engine.graphs import outputs, placeholders
from functrain.engine.passes import GROUPED, same_form

aten = torch.ops.aten
NEVER = 1 << 40
"""The time of the last reading of a result: after every operation."""

_OVERWRITE = """
    abs.default add.Tensor addcdiv.default addcmul.default addmm.default bitwise_and.Tensor bitwise_or.Tensor
    bitwise_xor.Tensor ceil.default clamp.default clamp_max.default clamp_min.default cos.default div.Tensor
    erf.default exp.default expm1.default floor.default lerp.Scalar lerp.Tensor log.default log1p.default
    log2.default logical_not.default masked_fill.Scalar mul.Tensor neg.default pow.Tensor_Scalar reciprocal.default
    relu.default round.default rsqrt.default sigmoid.default sign.default sin.default sqrt.default square.default
    sub.Tensor tanh.default
"""
_LISTS = """
    abs.default add.Tensor addcdiv.default addcmul.default div.Tensor exp.default lerp.Scalar mul.Tensor
    neg.default pow.Tensor_Scalar reciprocal.default rsqrt.default sign.default sqrt.default sub.Tensor
"""


def _operation(name: str) -> Any:
    packet, overload = name.split(".")
    return getattr(getattr(aten, packet), overload)


IN_PLACE = {_operation(name): name.split(".")[0] + "_" for name in _OVERWRITE.split()}
"""Operation -> the name of the method that puts its result into its first argument."""

FOREACH = {_operation(name): "_foreach_" + name.split(".")[0] for name in _LISTS.split()}
"""Operation -> the one that does it to lists of tensors."""

_COMMUTES = (aten.add.Tensor, aten.mul.Tensor)
_TAKES_SCALAR = (aten.add.Tensor, aten.mul.Tensor, aten.div.Tensor)
"""Operations on lists of tensors that take one scalar tensor for all."""
GROUP_BYTES = 1 << 26
"""The largest group elsewhere, which bounds the memory of intermediate results."""


@attrs.frozen
class Step:
    """Operations that are called at once: one, or several of a kind grouped into one call."""

    nodes: tuple[Any, ...]
    in_place: tuple[int, ...] | None = None
    """For each node the position of the argument that receives the result; None when they make new tensors."""


@attrs.frozen
class Plan:
    """The order of the steps, and what is left to be copied into donated memory after them.

    Attributes:
        steps: in order.
        copies: (result, input) nodes: the results that were not computed in the input's memory.
        clones: indices of the results to be copied before that, as they are views of memory that is written to.
        home: for each node, the node in whose variable and memory its value lives.
        writes: the index of the first step that writes to donated memory; before it a failure leaves all intact.
    """

    steps: list[Step]
    copies: list[tuple[Any, Any]]
    clones: set[int]
    home: dict[Any, Any]
    writes: int


def make_plan(gm: Any, donated: tuple[tuple[int, int], ...]) -> Plan:
    """Return when and where the operations of a graph are done.

    Args:
        gm: a graph without operations that change their arguments.
        donated: pairs (input, result): the result goes into the memory of the input.
    """
    inputs = placeholders(gm.graph)
    results = outputs(gm.graph)
    target = {inputs[i]: results[k] for i, k in donated if results[k] is not inputs[i]}
    steps = _grouped(_ordered(gm, target))
    return _placed(gm, steps, target, results, donated, inputs)


def is_pointwise(node: Any) -> bool:
    """Return whether a node computes each element from one element of each argument."""
    return node.op == "call_function" and torch.Tag.pointwise in getattr(node.target, "tags", ())


def _may_wait(node: Any) -> bool:
    """Return whether a node is of the kind that an optimizer's work is made of: it may wait for others."""
    adds_product = node.target is aten.addmm.default and same_form(node.args[0].meta.get("val"), node.meta.get("val"))
    return is_pointwise(node) or adds_product


def _ordered(gm: Any, target: dict[Any, Any]) -> list[Any]:
    """Return the operations, those of the optimizer (the tail) as soon as what they need is there."""
    nodes = [n for n in gm.graph.nodes if n.op == "call_function"]
    results = outputs(gm.graph)
    tail: set[Any] = set()
    for node in reversed(nodes):
        if _may_wait(node) and all(u.op == "output" or u in tail for u in node.users):
            tail.add(node)
    position = {n: k for k, n in enumerate(n for n in nodes if n not in tail)}
    input_of = {node: i for i, node in target.items()}
    cones = []
    for k, result in enumerate(dict.fromkeys(n for n in results if n in tail)):
        cone = _cone(result, tail)
        needed = [position.get(a, -1) for n in cone for a in n.all_input_nodes]
        readers = [position.get(u, -1) for u in _readers(input_of.get(result), position)]
        cones.append((max([*needed, *readers], default=-1), k, cone))
    cones.sort(key=lambda c: c[:2])
    # What is small comes last, all together, so that it can be grouped.
    small = {n for ready, k, cone in cones if all(_groups(n) for n in cone) for n in cone}
    order, done, at = [], set(), 0
    late: list[Any] = []

    def emit(cone: list[Any]) -> None:
        for n in cone:
            if n not in done:
                done.add(n)
                (late if n in small else order).append(n)

    body = [n for n in nodes if n not in tail]
    while at < len(cones) and cones[at][0] < 0:
        emit(cones[at][2])
        at += 1
    for k, node in enumerate(body):
        order.append(node)
        while at < len(cones) and cones[at][0] <= k:
            emit(cones[at][2])
            at += 1
    rest = {n for n in tail if n not in done}
    # A large tail may need a value that a small one computes: such a value is done where it is needed.
    return _topological([*order, *late, *(n for n in nodes if n in rest)])


def _readers(node: Any, position: dict[Any, int]) -> list[Any]:
    """Return the operations that read an input, also through views of it."""
    if node is None:
        return []
    found, waiting, memory = [], [node], storage_of(node.meta.get("val"))
    while waiting:
        for user in waiting.pop().users:
            found.append(user)
            if storage_of(user.meta.get("val")) == memory:
                waiting.append(user)
    return [n for n in found if n in position]


def _cone(result: Any, tail: set[Any]) -> list[Any]:
    """Return what of the tail a result needs, in order."""
    found: dict[Any, None] = {}
    stack = [(result, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            found[node] = None
        elif node in tail and node not in found:
            stack.append((node, True))
            stack.extend((a, False) for a in reversed(node.all_input_nodes))
    return list(found)


def _topological(nodes: list[Any]) -> list[Any]:
    known, order, done = set(nodes), [], set()
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
                stack.extend((a, False) for a in reversed(node.all_input_nodes) if a in known and a not in done)
    return order


def _groups(node: Any) -> bool:
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return False
    return value.numel() <= GROUPED if value.device.type == "cpu" else value.numel() * value.itemsize <= GROUP_BYTES


def _grouped(order: list[Any]) -> list[Step]:
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
    steps = [Step((node,)) for node in head]
    for _, nodes in sorted(groups.items(), key=lambda item: item[0][0]):
        for part in _bounded(nodes):
            steps.append(Step(tuple(part)))
    return steps


def _bounded(nodes: list[Any]) -> list[list[Any]]:
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


def _placed(gm, steps, target, results, donated, inputs) -> Plan:
    memory = {n: storage_of(n.meta.get("val")) for n in gm.graph.nodes}
    fixed = {n: f"input {k}" for k, n in enumerate(inputs)}
    root = {n: fixed.get(n) or _root(n, memory, inputs) for n in gm.graph.nodes}
    home = {n: n for n in gm.graph.nodes}
    last: dict[Any, int] = {}
    for t, step in enumerate(steps):
        for node in step.nodes:
            for a in node.all_input_nodes:
                last[root[a]] = max(last.get(root[a], -1), t)
    for node in results:
        last[root[node]] = NEVER
    owned = {root[i]: i for i in target}
    closed = {root[n] for n in gm.graph.nodes if n.op in ("placeholder", "get_attr")} - owned.keys()
    state = _State(root, home, last, owned, closed, target)
    placed = [_place(step, t, state) for t, step in enumerate(steps)]
    writes = state.first_write
    copies = [(result, i) for i, result in target.items() if home[result] is not i]
    if copies:
        writes = min(writes, len(steps))
    written = {root[i] for i in target}
    given_up = {inputs[i] for i, _ in donated}
    exact = {k for i, k in donated if home[results[k]] is inputs[i]}
    # The tensor of a donated input is returned once, and what views its memory must be copied before that changes.
    clones = {k for k, n in enumerate(results) if k not in exact and (root[n] in written or n in given_up)}
    return Plan(placed, copies, clones, home, writes)


def _root(node: Any, memory: dict[Any, int | None], inputs: list[Any]) -> Any:
    """Return what stands for the memory of a value: an input, or the number of a storage."""
    for k, i in enumerate(inputs):
        if memory[node] is not None and memory[i] == memory[node]:
            return f"input {k}"
    return memory[node] if memory[node] is not None else node


@attrs.define
class _State:
    root: dict
    home: dict
    last: dict
    owned: dict
    closed: set
    target: dict
    first_write: int = NEVER


def _place(step: Step, t: int, state: _State) -> Step:
    read: dict[Any, int] = {}
    for node in step.nodes:
        for r in {state.root[a] for a in node.all_input_nodes}:
            read[r] = read.get(r, 0) + 1
    chosen = [_receiver(node, t, read, state, len(step.nodes) > 1) for node in step.nodes]
    if any(position is None for position in chosen):
        return step
    for node, position in zip(step.nodes, chosen, strict=True):
        a = node.args[position]
        before, after = state.root[node], state.root[a]
        state.home[node] = state.home[a]
        for other, r in state.root.items():  # views of the result are in its new place
            if r == before:
                state.root[other] = after
        state.last[after] = state.last.get(before, -1)
        if after in state.owned:
            state.first_write = min(state.first_write, t)
    return Step(step.nodes, tuple(chosen))  # pyright: ignore


def _receiver(node: Any, t: int, read: dict, state: _State, grouped: bool) -> int | None:
    """Return the position of the argument in whose memory the result can be put, or None."""
    if node.target not in IN_PLACE:
        return None
    swaps = node.target in _COMMUTES and not node.kwargs and len(node.args) == 2 and not grouped
    best, score = None, -1
    for position in (0, 1) if swaps else (0,):
        a = node.args[position]
        if not isinstance(a, torch.fx.Node) or not same_form(a.meta.get("val"), node.meta.get("val")):
            continue
        r = state.root[a]
        if r in state.closed or state.last.get(r, -1) != t or read[r] > 1 or not _whole(a):
            continue
        if any(state.root[b] == r and b is not a for b in node.all_input_nodes):
            continue
        worth = _worth(node, r, state)
        if worth > score:
            best, score = position, worth
    return best


def _worth(node: Any, r: Any, state: _State) -> int:
    """Return how good it is to put a result into some memory; -1 for impossible."""
    if r not in state.owned:
        return 1
    if state.target[state.owned[r]] is node:
        return 2
    # Donated memory that another result will take at the end must be free again by then.
    return 0 if state.last.get(state.root[node], -1) < NEVER else -1


def _whole(node: Any) -> bool:
    if node.op == "placeholder":
        return True
    form = node.meta["val"].form
    return form.numel() * form.element_size() == form.untyped_storage().nbytes()
