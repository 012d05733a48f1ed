"""The first trace of a step: what it closes over, what it puts out, and whether it stops."""

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.fx import GraphModule

from functrain import tree
from functrain.dispatch_contexts import autocast_state, unseen
from functrain.engine.graph.queries import output_of, placeholders
from functrain.engine.graph.scan_node import value_of
from functrain.engine.tracing.abstract_tensor import abstract
from functrain.engine.transforms.closing import Closed, Discovering, Filling, results
from functrain.engine.transforms.scanning.masking import without_asking
from functrain.engine.transforms.scanning.program import Program, Tensors, Traced, never, trace_step
from functrain.engine.transforms.scanning.running import run
from functrain.engine.transforms.scanning.steps import check_carry, columns_of, outputs_of, unpack


@attrs.define
class _Learned:
    """What the first trace of a step learns besides its graph."""

    y_spec: Any = None
    stops: bool = False


def record_scan(f: Callable, carry: Any, xs: Any, steps: int | None) -> tuple[Any, Any]:
    """Return what `scan` returns, inside a trace."""
    start, spec = tree.flatten(carry)
    columns, row_of = columns_of(xs)
    device = start[0].device if start else torch.device("cpu")
    learned = _Learned()
    inner = getattr(f, "recomputes", None)

    def call(carry: Tensors, row: Tensors) -> tuple[Tensors, Tensors]:
        old = tree.unflatten(spec, carry[1:])
        result = (inner or f)(old, row_of(row))
        after, y, when = unpack(result)
        check_carry(old, after)
        ys, learned.y_spec = outputs_of(y)
        learned.stops = isinstance(when, Tensor) or bool(when)
        stop = torch.as_tensor(when, device=device) if learned.stops else carry[0]
        return [stop, *tree.leaves(after)], ys

    with unseen():
        flag = torch.zeros((), dtype=torch.bool, device=device)
    names = ["whether the scan stopped", *(f"the carry of scan{_inside(p)}" for p, _ in tree.leaves_with_path(carry))]
    first = Program(never, carry=len(start) + 1, xs=len(columns), length=steps, name=_name(f))
    program, closed = discover(call, first, [flag, *start, *columns], names)
    program = attrs.evolve(program, stops=learned.stops, recomputes=2 if inner else 0)
    if not learned.stops:
        program = _without_flag(program)
    tensors = [*([flag] if learned.stops else []), *start, *columns, *closed]
    made = run(program if can_be_asked(start) else without_asking(program), tensors)[learned.stops :]
    last = tree.unflatten(spec, made[: len(start)])
    return last, None if learned.y_spec is None else tree.unflatten(learned.y_spec, made[len(start) :])


def can_be_asked(tensors: Tensors) -> bool:
    """Return whether to ask for a value costs nothing: on the CPU it does, anywhere else it is a wait.

    >>> can_be_asked([torch.ones(2)])
    True
    """
    return all(t.device.type == "cpu" for t in tensors)


def _name(f: Callable) -> str:
    return getattr(f, "__name__", None) or type(f).__name__


def _inside(path: str) -> str:
    return f" at {path}" if path else ""


def discover(call: Callable, program: Program, tensors: Tensors, names: list[str]) -> tuple[Program, Tensors]:
    """Trace a step for the first time; return its program, whose consts are what it closes over, and these.

    Args:
        call: (carry, row) -> (carry, ys), flat, of tensors that it is given or closes over.
        program: what the program is to be, but for its step.
        tensors: the carry and the xs.
        names: of the carry, for messages.
    """
    with unseen():
        carry, xs, _ = program.cut(tensors)
        examples: Tensors = [
            *(abstract(t, t.shape) for t in carry),
            *(abstract(t, t.shape[1:]) for t in xs),
        ]
    names = [*names, *["a row of the xs of scan"] * len(xs)]
    modes: list[Discovering] = []
    closed: list[Closed] = []
    surroundings = autocast_state()

    def discovering(carry: Tensors, row: Tensors, _: Tensors) -> tuple[Tensors, Tensors]:
        with Discovering(program.name) as mode:
            after, ys = call(carry, row)
        modes.append(mode)
        return results(mode, after), results(mode, ys)

    def step(carry: Tensors, row: Tensors, consts: Tensors) -> tuple[Tensors, Tensors]:
        with surroundings(), Filling(closed[0], consts) as mode:
            after, ys = call(carry, row)
        return results(mode, after), results(mode, ys)

    traced = trace_step(program, examples, names, discovering)
    closed.append(modes[0].select(traced.closed))
    shared = [value_of(n) for n in placeholders(traced.graph.graph)[len(examples) :]]
    traced = Traced(traced.graph, [*examples, *shared], [], traced.ys)
    return attrs.evolve(program, step=step, traced=traced), closed[0].tensors


def _without_flag(program: Program) -> Program:
    """Return the program of a step that never stops: without the flag that says whether it did."""
    step, traced = program.step, program.traced
    assert traced is not None
    graph: GraphModule = traced.graph
    output = output_of(graph.graph)
    output.args = (list(output.args[0])[1:],)
    flag = placeholders(graph.graph)[0]
    graph.graph.erase_node(flag)
    graph.recompile()

    def without(carry: Tensors, row: Tensors, consts: Tensors) -> tuple[Tensors, Tensors]:
        like = carry[0] if carry else (row or consts or [torch.zeros(())])[0]
        after, ys = step([torch.zeros((), dtype=torch.bool, device=like.device), *carry], row, consts)
        return after[1:], ys

    traced = attrs.evolve(traced, examples=traced.examples[1:])
    return attrs.evolve(program, step=without, carry=program.carry - 1, traced=traced)
