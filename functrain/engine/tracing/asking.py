"""Values in a trace: what depends on literals, factory functions and small closed-over tensors alone can be asked for.

`if torch.tensor(1.0) > 0` is a constant of the program, and so is what a library computes of such tensors to build a
mask. The operations recorded so far that the value depends on are run, then and there.
"""

import operator
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from functrain.engine.tracing.abstract_tensor import Abstract, storage_of
from functrain.engine.tracing.meta.geometry import tensors_in
from functrain.engine.tracing.operation_facts import facts, written_tensors
from functrain.engine.tracing.refusals import Refused

MOST_ELEMENTS = 4096
"""Elements of a closed-over tensor that Python may look at: they are compared at each call."""


def evaluate(recording: Any, tensor: Abstract) -> Tensor:
    """Return the values that a tensor of a running trace has.

    Raises:
        Refused: it depends on an argument, on memory that is not initialised, or on a large tensor closed over.
    """
    values: dict[Node, Any] = {}
    with torch.no_grad():
        for node in _needs(recording.graph, tensor):
            values[node] = _value(recording, node, values)
    return values[tensor.node].clone()  # pyright: ignore


def _needs(graph: Any, tensor: Abstract) -> list[Node]:
    """Return the nodes that a value depends on, in order: what it is computed from, and what wrote to their memory."""
    needed: set[Any] = {tensor.node}
    memories, order = {storage_of(tensor)}, []
    for node in reversed(graph.nodes):
        if node in needed or _writes_to(node, memories):
            order.append(node)
            for n in node.all_input_nodes:
                needed.add(n)
                memories.update(map(storage_of, tensors_in(n.meta.get("val"))))
    return order[::-1]


def _writes_to(node: Node, memories: set[int | None]) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload) or not facts(node.target).writes:
        return False
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
    return any(storage_of(t) in memories for t in written_tensors(node.target, args, kwargs))


def _value(recording: Any, node: Node, values: dict[Node, Any]) -> Any:
    if node.op == "get_attr":
        return _constant(recording, str(node.target))
    is_own = node.target is operator.getitem or isinstance(node.target, torch._ops.OpOverload)
    if node.op == "placeholder" or not is_own or _is_uninitialised(node):
        raise Refused("value")
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), values.__getitem__)
    return node.target(*args, **kwargs)  # pyright: ignore


def _is_uninitialised(node: Node) -> bool:
    made = node.meta["val"]
    is_empty = isinstance(made, Tensor) and made.numel() == 0
    return isinstance(node.target, torch._ops.OpOverload) and facts(node.target).is_uninitialised and not is_empty


def _constant(recording: Any, name: str) -> Tensor:
    tensor = recording.constants[name]
    if name in recording.literals:
        return tensor
    if isinstance(tensor, Abstract):
        outer = tensor.recording
        return evaluate(outer, tensor)
    if tensor.numel() > MOST_ELEMENTS:
        raise Refused("large", str(tensor.numel()))
    for root in recording.tracer.recordings:
        if all(t is not tensor for t, _ in root.asked):
            root.asked.append((tensor, tensor.detach().clone()))
    return tensor.detach()
