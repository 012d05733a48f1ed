"""A step that is a graph alone, as a function again, for a transform that meets the loop back of a gradient."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from functrain.engine.graph.in_place import InPlace
from functrain.engine.graph.queries import attribute
from functrain.engine.graph.scan_node import Loop
from functrain.engine.transforms.scanning.program import Body, Program, Tensors, Traced


def step_of(traced: Traced, carry: int, run: Callable) -> Body:
    """Return the function of the graph of a step.

    Args:
        traced: the graph.
        carry: the number of its results that are carry.
        run: what runs a program, for the loops inside.
    """

    def step(*cut: Tensors) -> tuple[Tensors, Tensors]:
        made = _replay(traced.graph, [*(t for part in cut for t in part), *traced.closed], run)
        return made[:carry], made[carry:]

    return step


def _replay(gm: GraphModule, inputs: Tensors, run: Callable) -> Tensors:
    values: dict[Node, Any] = {}
    remaining = iter(inputs)
    for node in gm.graph.nodes:
        if node.op == "placeholder":
            values[node] = next(remaining)
        elif node.op == "get_attr":
            values[node] = attribute(gm, str(node.target))
        elif node.op == "call_function":
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = _call(node.target, args, kwargs, run)
        else:
            return list(torch.fx.map_arg(node.args[0], values.__getitem__))  # pyright: ignore
    raise AssertionError("a graph without an output")


def _call(target: Any, args: Any, kwargs: Any, run: Callable) -> Any:
    if isinstance(target, Loop):
        return run(_program_of(target, run), args)
    if isinstance(target, InPlace):
        return target.functionally(*args)
    return target(*args, **kwargs)


def _program_of(loop: Loop, run: Callable) -> Program:
    carry, xs, consts, rows = loop.kind.counts
    count = carry + xs + consts

    def step(*cut: Tensors) -> tuple[Tensors, Tensors]:
        # The rows to write into come last, and nothing reads them.
        unread: list[Tensor] = loop.examples[count:]
        made = _replay(loop.body, [*(t for part in cut for t in part), *unread], run)
        return made[:carry], made[carry : carry + rows]

    kind = loop.kind
    asked = loop.examples[0 if kind.stops else carry] if kind.stops or kind.skips else None
    masked = asked is not None and asked.dim() > 0  # it was vmapped
    return Program(step, carry, xs, kind.length, kind.reverse, kind.stops, kind.skips, masked, name="a loop")
