"""In whose memory each operation of a graph puts its result.

A result goes into the memory of an operand, or of a donated input, where nobody reads that memory any more: no later
operation, through no view, and no other operand of the same call.
"""

from collections.abc import Iterable
from typing import Any

import attrs
import torch

from functrain.engine.backends.aten.schedule import Group, operation, steps_of
from functrain.engine.graph.aliasing import Aliasing, laid_out_by_storage
from functrain.engine.graph.in_place import InPlace
from functrain.engine.graph.queries import outputs, placeholders
from functrain.engine.tracing.meta.geometry import is_dense, same_layout

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

IN_PLACE = {operation(name): name.split(".")[0] + "_" for name in _OVERWRITE.split()}
"""Operation -> the name of the method that puts its result into its first argument."""

_COMMUTES = (aten.add.Tensor, aten.mul.Tensor)


@attrs.frozen
class MemoryPlan:
    """The order of the steps, and what is left to be copied into donated memory after them.

    Attributes:
        steps: in order.
        copies: (result, input) nodes: the results that were not computed in the input's memory.
        clones: indices of the results to be copied before that, as they are views of memory that is written to.
        home: for each node, the node in whose variable and memory its value lives.
        writes: the index of the first step that writes to donated memory; before it a failure leaves all intact.
    """

    steps: list[Group]
    copies: list[tuple[Any, Any]]
    clones: set[int]
    home: dict[Any, Any]
    writes: int


def make_plan(gm: Any, donated: tuple[tuple[int, int], ...]) -> MemoryPlan:
    """Return when and where the operations of a graph are done.

    Args:
        gm: a graph without operations that change their arguments.
        donated: pairs (input, result): the result goes into the memory of the input.
    """
    inputs, results = placeholders(gm.graph), outputs(gm.graph)
    target = {inputs[i]: results[k] for i, k in donated if results[k] is not inputs[i]}
    aliasing = Aliasing(gm.graph)
    steps = steps_of(gm.graph, target, aliasing)
    needless = {n for step in steps for n in step.nodes if _is_copied_again(n, target, results)}
    placing = _Placing(gm.graph, [step for step in steps if needless.isdisjoint(step.nodes)], target, aliasing)
    placing.home.update({node: node.args[0] for node in needless})
    steps = placing.run()
    copies = [(result, i) for i, result in target.items() if placing.home[result] is not i]
    writes = min(placing.first_write, len(steps)) if copies else placing.first_write
    return MemoryPlan(steps, copies, _to_clone(placing, results, donated, inputs), placing.home, writes)


def _is_copied_again(node: Any, target: dict[Any, Any], results: list[Any]) -> bool:
    """Return whether a node is a copy of an input that nobody writes to, made only to be copied into donated memory."""
    if node.target is not aten.clone.default or results.count(node) != 1 or node not in target.values():
        return False
    source, value = node.args[0], node.args[0].meta["val"]
    kept = source.op == "placeholder" and source not in target and not (value.is_conj() or value.is_neg())
    return kept and all(user.op == "output" for user in node.users)


def _to_clone(placing: "_Placing", results: list[Any], donated: Iterable[tuple[int, int]], inputs: list[Any]) -> set:
    # The tensor of a donated input is returned once, and what views its memory must be copied before that changes.
    memory = placing.aliasing.memory
    changed = {memory(i) for i in placing.target}
    given_up = {inputs[i] for i, _ in donated}
    exact = {k for i, k in donated if placing.home[results[k]] is inputs[i]}
    return {k for k, n in enumerate(results) if k not in exact and (memory(n) in changed or n in given_up)}


class _Placing:
    """Where the values of a graph live, as it is being decided.

    Attributes:
        target: donated input -> the result that goes into its memory.
        aliasing: what shares memory, where results were put included.
        home: for each node, the node in whose variable and memory its value lives.
        first_write: the index of the first step that writes to donated memory.
    """

    def __init__(self, graph: Any, steps: list[Group], target: dict[Any, Any], aliasing: Aliasing) -> None:
        self.target, self.aliasing, self.first_write = target, aliasing, NEVER
        self.home = {n: n for n in graph.nodes}
        memory = aliasing.memory
        self._owned = {memory(i): i for i in target}
        closed = {memory(n) for n in graph.nodes if n.op in ("placeholder", "get_attr")}
        self._closed = closed - self._owned.keys()
        self._by_storage = laid_out_by_storage(graph, aliasing)
        self._steps, self._last = steps, _last_readings(steps, outputs(graph), aliasing)

    def run(self) -> list[Group]:
        """Return the steps, each with the arguments that receive its results."""
        return [self._place(step, t) for t, step in enumerate(self._steps)]

    def _place(self, step: Group, t: int) -> Group:
        if isinstance(step.nodes[0].target, InPlace):
            return self._change(step.nodes[0], t)
        counts = _count(step.nodes, self.aliasing)
        chosen = [self._receiver(node, t, counts, len(step.nodes) > 1) for node in step.nodes]
        if any(position is None for position in chosen):
            return step
        for node, position in zip(step.nodes, chosen, strict=True):
            self._put(node, node.args[position], t)
        return Group(step.nodes, tuple(chosen))  # pyright: ignore

    def _change(self, node: Any, t: int) -> Group:
        """Return the step of a write made a value, which may leave out the copy of memory that nobody reads later."""
        counts = _count((node,), self.aliasing)
        items = {user.args[1]: user for user in node.users}
        owned = []
        for k in range(node.target.count):
            memory = self.aliasing.memory(node.args[k])
            free = memory not in self._closed and memory not in self._by_storage and memory not in self._owned
            if free and self._last.get(memory) == t and counts[memory] == 1 and self._is_whole(node.args[k], memory):
                owned.append(k)
                if k in items:
                    self._last[memory] = self._last.get(self.aliasing.memory(items[k]), t)
                    self.aliasing.join(items[k], node.args[k])
        return Group((node,), tuple(owned) or None)

    def _put(self, node: Any, receiver: Any, t: int) -> None:
        before, after = self.aliasing.memory(node), self.aliasing.memory(receiver)
        self.home[node] = self.home[receiver]
        self._last[after] = self._last.get(before, -1)
        self.aliasing.join(node, receiver)
        if after in self._owned:
            self.first_write = min(self.first_write, t)

    def _receiver(self, node: Any, t: int, counts: dict, grouped: bool) -> int | None:
        """Return the position of the argument in whose memory the result can be put, or None."""
        if node.target not in IN_PLACE:
            return None
        swaps = node.target in _COMMUTES and not node.kwargs and len(node.args) == 2 and not grouped
        best, score = None, -1
        for position in (0, 1) if swaps else (0,):
            worth = self._worth(node, node.args[position], t, counts)
            if worth > score:
                best, score = position, worth
        return best

    def _worth(self, node: Any, receiver: Any, t: int, counts: dict) -> int:
        """Return how good it is to put a result into the memory of an operand; -1 for impossible."""
        if not isinstance(receiver, torch.fx.Node) or not same_layout(receiver.meta["val"], node.meta["val"]):
            return -1
        memory = self.aliasing.memory(receiver)
        if self.aliasing.memory(node) in self._by_storage or memory in self._by_storage:
            return -1
        if memory in self._closed or self._last.get(memory) != t or not self._is_whole(receiver, memory):
            return -1
        if counts[memory] > 1 and not _is_read_in_place(node, receiver, counts[memory]):
            return -1
        if memory not in self._owned:
            return 1
        if self.target[self._owned[memory]] is node:
            return 2
        # Donated memory that another result will take at the end must be free again by then.
        return 0 if self._last.get(self.aliasing.memory(node), -1) < NEVER else -1

    def _is_whole(self, node: Any, memory: Any) -> bool:
        """Return whether a value fills its memory, so that what is put there keeps no other memory alive."""
        value, whole = node.meta["val"], memory.meta["val"]
        if not is_dense(value) or value.is_conj() or value.is_neg() or not isinstance(whole, torch.Tensor):
            return False
        return memory.op == "placeholder" or value.numel() * value.itemsize == whole.numel() * whole.itemsize


def _last_readings(steps: list[Group], results: list[Any], aliasing: Aliasing) -> dict[Any, int]:
    """Return for each memory the index of the last step that reads it, through whatever view."""
    last: dict[Any, int] = {}
    for t, step in enumerate(steps):
        for node in step.nodes:
            for operand in node.all_input_nodes:
                last[aliasing.memory(operand)] = t
    for node in results:
        last[aliasing.memory(node)] = NEVER
    return last


def _count(nodes: tuple[Any, ...], aliasing: Aliasing) -> dict[Any, int]:
    """Return how many operands of a step have each memory, an operand that is passed twice counted twice."""
    counts: dict[Any, int] = {}

    def count(operand: Any) -> None:
        memory = aliasing.memory(operand)
        counts[memory] = counts.get(memory, 0) + 1

    for node in nodes:
        torch.fx.map_arg((node.args, node.kwargs), count)
    return counts


def _is_read_in_place(node: Any, receiver: Any, count: int) -> bool:
    """Return whether all operands that have the memory of one are that very value, element by element: x * x."""
    same = sum(operand is receiver for operand in node.args)
    return same == count and torch.Tag.pointwise in node.target.tags
