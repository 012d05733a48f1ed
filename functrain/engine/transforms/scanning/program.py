"""The program of a scan: a step as a function of flat tensors, how often it is made, and in which order.

A transform makes a new program of a program: its step under that transform. A trace makes a loop of the last one.
"""

from collections.abc import Callable, Sequence
from typing import Any

import attrs
from torch import Tensor
from torch.fx import GraphModule

from functrain.dispatch_contexts import unseen
from functrain.dispatch_state import current_level
from functrain.engine.graph.passes.functionalizing import functionalize
from functrain.engine.graph.queries import copy, output_of, placeholders
from functrain.engine.graph.scan_node import Kind, Loop, lift_constants, unalias, value_of
from functrain.engine.tracing.abstract_tensor import abstract
from functrain.engine.tracing.lazy_module import graph_module
from functrain.engine.tracing.meta.geometry import same_layout
from functrain.engine.tracing.recording import recording
from functrain.engine.tracing.to_graph import trace

Tensors = list[Tensor]
Body = Callable[[Tensors, Tensors, Tensors], tuple[Tensors, Tensors]]
"""(carry, row of xs, consts) -> (carry, row of ys), all flat."""


@attrs.frozen
class Traced:
    """The graph of a step, without writes.

    Attributes:
        graph: carry, row and consts in, then what is `closed`; carry and ys out.
        examples: tensors without memory like the inputs, but for what is closed over.
        closed: the tensors closed over that are no inputs of the step.
        ys: tensors without memory like the ys.
    """

    graph: GraphModule
    examples: Tensors
    closed: Tensors
    ys: Tensors


@attrs.frozen(eq=False)
class Program:
    """A scan over flat tensors: first the carry, then the xs, then what each step gets alike.

    Attributes:
        step: one step, as it can be run under any transform.
        carry: the number of tensors carried.
        xs: the number of tensors of which each step gets a row.
        length: the number of steps, None where `stops` alone ends them.
        reverse: whether the last row comes first.
        stops: whether the first carry, of bools, ends the loop before the step at which all of it is true.
        skips: whether the first of the xs, of bools, says at which steps anything is to be done.
        masked: whether each step looks itself whether it is to do anything.
        recomputes: whether gradients are to keep carries alone: 1, those of all steps; 2, where it is long, those of
            some.
        traced: the graph of the step, where it is there already.
        name: of the function, for messages.
    """

    step: Body
    carry: int
    xs: int
    length: int | None
    reverse: bool = False
    stops: bool = False
    skips: bool = False
    masked: bool = False
    recomputes: int = 0
    traced: Traced | None = None
    name: str = "a scan"

    def cut(self, tensors: Sequence[Tensor]) -> tuple[Tensors, Tensors, Tensors]:
        """Return the carry, the xs and the consts of a call."""
        end = self.carry + self.xs
        return list(tensors[: self.carry]), list(tensors[self.carry : end]), list(tensors[end:])


def never(*_: Any) -> Any:
    """Stand for the step of a program that is traced before it has one, or never runs as a function."""
    raise AssertionError("this step of a loop is a graph alone")


def examples_of(program: Program, tensors: Sequence[Tensor]) -> Tensors:
    """Return tensors without memory like the inputs of a step: carry and rows contiguous, consts as they are."""
    carry, xs, consts = program.cut(tensors)
    return [
        *(abstract(t, t.shape) for t in carry),
        *(abstract(t, t.shape[1:]) for t in xs),
        *(abstract(t) for t in consts),
    ]


def trace_step(
    program: Program, examples: Tensors, names: list[str] | None = None, run: Callable | None = None
) -> Traced:
    """Return the graph of a step; with `run`, of what that function makes of the flat inputs in its place."""
    counted: list[int] = []

    def flat(*inputs: Tensor) -> Tensors:
        carry, ys = (run or program.step)(*program.cut(inputs))
        counted[:] = [len(carry)]
        return [*carry, *ys]

    recorded = trace(flat, examples, names).gm
    with unseen():
        graph = functionalize(recorded)
        closed = lift_constants(graph)
    ys = [value_of(node) for node in output_of(graph.graph).args[0][counted[0] :]]
    return Traced(graph, examples, closed, ys)


def record(program: Program, tensors: Sequence[Tensor]) -> Tensors:
    """Enter a scan of plain tensors into the running trace as one node; return its carry and ys."""
    current = recording()
    assert current is not None and not current_level()
    with unseen():
        examples = examples_of(program, tensors)
    traced = program.traced
    if traced is None or not all(map(same_layout, traced.examples, examples)):
        traced = trace_step(program, examples)
    with unseen():
        return enter(program, traced, tensors)


def enter(program: Program, traced: Traced, tensors: Sequence[Tensor]) -> Tensors:
    """Enter the node of a loop over a graph; return its carry and ys."""
    current: Any = recording()
    body, length = graph_module(traced.graph, copy(traced.graph.graph)), program.length
    _add_output_rows(body, traced.ys)
    unalias(body, tuple((i, i) for i in range(program.carry)))  # what a step leaves as it is needs no copy
    examples = [*traced.examples, *(abstract(t) for t in traced.closed)]
    counts = program.carry, program.xs, len(examples) - program.carry - program.xs, len(traced.ys)
    kind = Kind(length, counts, program.reverse, program.stops, program.skips)
    loop = Loop(body, [*examples, *(abstract(t, t.shape) for t in traced.ys)], kind)
    made = [abstract(t, t.shape) for t in traced.examples[: program.carry]]
    made += [abstract(t, (length or 0, *t.shape)) for t in traced.ys]
    return current.add(loop, [*tensors, *traced.closed], made, "scan")


def _add_output_rows(body: GraphModule, ys: Tensors) -> None:
    """Give the body a placeholder for each output row, which its backend writes into."""
    last = placeholders(body.graph)[-1:]
    for i, y in enumerate(ys):
        graph = body.graph
        place = graph.inserting_after(last[0]) if last else graph.inserting_before(next(iter(graph.nodes)))
        with place:
            last = [graph.placeholder(f"row_{i}")]
        last[0].meta["val"] = abstract(y, y.shape)
    body.recompile()


def is_float(tensor: Tensor) -> bool:
    """Return whether a tensor can have a gradient.

    >>> import torch
    >>> is_float(torch.ones(2)), is_float(torch.tensor(1))
    (True, False)
    """
    return tensor.is_floating_point() or tensor.is_complex()
