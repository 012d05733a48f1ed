"""One step and its backward pass in one graph, cut in two: what the loop keeps, and the step of the loop back.

What the backward pass reads of the step is kept; views of it, what depends on nothing that changes, and cheap
arithmetic are computed again.
"""

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.autograd import Variable
from torch.fx import Graph, Node

from functrain.dispatch_contexts import unseen
from functrain.engine.graph.passes.functionalizing import functionalize
from functrain.engine.graph.passes.simplifying import remove_dead
from functrain.engine.graph.queries import outputs, placeholders
from functrain.engine.graph.scan_node import lift_constants, value_of
from functrain.engine.tracing.abstract_tensor import abstract
from functrain.engine.tracing.lazy_module import graph_module
from functrain.engine.tracing.recording import recording
from functrain.engine.tracing.to_graph import trace
from functrain.engine.transforms.scanning.cutting import Kept, keep_for
from functrain.engine.transforms.scanning.products import as_product
from functrain.engine.transforms.scanning.program import Program, Tensors, Traced, examples_of, is_float

aten = torch.ops.aten


@attrs.frozen
class Joint:
    """A step with its backward pass, cut in two.

    Attributes:
        forward: the graph of the step, whose ys end with what is kept.
        ys: how many of its ys are those of the step.
        back: the graph of the step of the loop back.
        carry: the positions of the carry that have a cotangent.
        of_ys: the positions of the ys that have a cotangent.
        consts: the positions of the consts that get a gradient.
        xs: the positions of the xs that get a gradient.
        read: the positions of the xs that the loop back reads.
        later: (const, left, right, whether transposed) of each gradient that is a product after the loop back; the
            factors are columns that it reads, or where negative its further ys.
    """

    forward: Traced
    ys: int
    back: Traced
    carry: list[int]
    of_ys: list[int]
    consts: list[int]
    xs: list[int]
    read: list[int]
    later: list[tuple[int, int, int, bool]]


@attrs.define
class _Seen:
    """What the trace of a joint graph learns besides.

    Attributes:
        floats: the positions of the results that have a cotangent.
        count: the number of results of the step.
        gradients: for each input whether it gets a gradient.
    """

    floats: list[int] = attrs.field(factory=list)
    count: int = 0
    gradients: list[bool] = attrs.field(factory=list)


def joint(program: Program, tensors: Sequence[Tensor], needed: Sequence[bool]) -> Joint:
    """Return a step of plain tensors with its backward pass.

    Args:
        program: the scan.
        tensors: its tensors.
        needed: of which of them gradients are wanted.
    """
    with unseen():
        examples = examples_of(program, tensors)
    wanted = [is_float(t) and (k < program.carry or needed[k]) for k, t in enumerate(examples)]
    seen = _Seen()
    recorded = trace(_both(program, wanted, seen), examples).gm
    with unseen():
        graph = functionalize(recorded)
        inputs = placeholders(graph.graph)
        closed = lift_constants(graph)
        extra = [n for n in placeholders(graph.graph) if n not in inputs]
        own, incoming = inputs[: len(examples)], inputs[len(examples) :]
        return _Cut(program, graph, own, incoming, extra, closed, wanted, seen).joint()


def _both(program: Program, wanted: list[bool], seen: _Seen) -> Callable[..., Tensors]:
    def both(*inputs: Tensor) -> Tensors:
        leaves = [t.detach().requires_grad_() if w else t for t, w in zip(inputs, wanted, strict=True)]
        with torch.enable_grad():
            carry, ys = program.step(*program.cut(leaves))
        made = [*carry, *ys]
        seen.count, seen.floats = len(made), [k for k, t in enumerate(made) if is_float(t)]
        cotangents = _further_inputs([made[k] for k in seen.floats], inputs)
        pairs = [(made[k], c) for k, c in zip(seen.floats, cotangents, strict=True) if made[k].requires_grad]
        gradients = _backward(pairs, [t for t, w in zip(leaves, wanted, strict=True) if w])
        remaining = iter(gradients)
        each = [next(remaining) if w else None for w in wanted]
        seen.gradients = [g is not None for g in each]
        return [*(t.detach() for t in made), *(g for g in each if g is not None)]

    return both


def _backward(pairs: list[tuple[Tensor, Tensor]], by: Tensors) -> Sequence[Tensor | None]:
    if not pairs or not by:
        return [None] * len(by)
    made, cotangents = zip(*pairs, strict=True)
    with torch.autograd.set_multithreading_enabled(False):
        run: Any = Variable._execution_engine.run_backward  # pyright: ignore
        return run(made, cotangents, False, False, tuple(by), True, accumulate_grad=False)


def _further_inputs(like: Tensors, inputs: Sequence[Any]) -> list[Any]:
    """Return further inputs of the running trace, like results that it has made."""
    current: Any = recording()
    made: list[Any] = []
    first = next(iter(current.graph.nodes))
    for t in like:
        after = made[-1].node if made else inputs[-1].node if inputs else None
        graph = current.graph
        with unseen(), graph.inserting_after(after) if after is not None else graph.inserting_before(first):
            made.append(current.input(abstract(t, t.shape), "a cotangent"))
    return made


@attrs.frozen
class _Cut:
    """A joint graph and its parts, to be cut in two."""

    program: Program
    graph: Any
    own: list[Node]
    incoming: list[Node]
    extra: list[Node]
    closed: Tensors
    wanted: list[bool]
    seen: _Seen

    def joint(self) -> Joint:
        results, p = outputs(self.graph.graph), self.program
        made, gradients = results[: self.seen.count], iter(results[self.seen.count :])
        each = [next(gradients) if has else None for has in self.seen.gradients]
        carry = [k for k in range(p.carry) if self.wanted[k]]
        of_ys = [k - p.carry for k in self.seen.floats if k >= p.carry]
        consts = [k for k in range(p.carry + p.xs, len(each)) if each[k] is not None]
        xs = [k for k in range(p.carry, p.carry + p.xs) if each[k] is not None]
        first = p.carry + p.xs
        every: dict[int, Any] = {} if p.stops or p.skips else {k: each[k] for k in consts}
        products = {k: product for k, g in every.items() if (product := as_product(g))}
        factors = [n for product in products.values() for n in (product.left, product.right)]
        consts = [k for k in consts if k not in products]
        wanted = [g for k, g in enumerate(each) if g is not None and k not in products]
        rows = self.own[p.carry : first]
        kept = keep_for([*wanted, *factors], self.own[: p.carry], rows, self.incoming)
        read = [k for k in range(p.xs) if rows[k] in kept.read]
        columns: list[Any] = [None] * len(of_ys) + [n if value_of(n).is_contiguous() else None for n in kept.saved]
        columns += [rows[k] for k in read]
        further: list[Node] = []
        at = {n: _column(n, columns, further) for n in factors}
        back = self._back(each, carry, of_ys, consts, xs, read, kept, further)
        forward = self._forward(made, kept)
        later = [(k - first, at[q.left], at[q.right], q.is_transposed) for k, q in products.items()]
        count = self.seen.count - p.carry
        consts, xs = [k - first for k in consts], [k - p.carry for k in xs]
        return Joint(forward, count, back, carry, of_ys, consts, xs, read, later)

    def _forward(self, made: list[Node], kept: Kept) -> Traced:
        new, copies = Graph(), {}
        for node in self.graph.graph.nodes:
            early = node.op != "output" and node not in self.incoming
            if early and all(n in copies for n in node.all_input_nodes):
                copies[node] = new.node_copy(node, copies.__getitem__)
        stopped = copies[self.own[0]] if self.program.stops else None
        ran = [_call(new, aten.logical_not.default, (stopped,), value_of(stopped))] if stopped is not None else []
        out = [*(copies[n] for n in made), *ran, *(_contiguous(new, copies[n]) for n in kept.saved)]
        new.output(out)
        gm = graph_module(self.graph, new)
        remove_dead(gm, but_checks=True)
        examples = [value_of(n) for n in self.own]
        return Traced(gm, examples, self.closed, [value_of(n) for n in out[self.program.carry :]])

    def _back(self, each, carry, of_ys, consts, xs, read, kept: Kept, further: list[Node]) -> Traced:
        p, new = self.program, Graph()
        copies: dict[Node, Node] = {}

        def placeholder(name: str, value: Tensor) -> Node:
            made = new.placeholder(name)
            made.meta["val"] = value
            return made

        cotangents = dict(zip(self.seen.floats, self.incoming, strict=True))
        for k in carry:
            copies[cotangents[k]] = placeholder(f"ct_{k}", abstract(value_of(self.own[k]), value_of(self.own[k]).shape))
        sums = [placeholder(f"sum_{k}", _like(value_of(self.own[k]))) for k in consts]
        if p.stops or p.skips:
            placeholder("made", value_of(self.own[0 if p.stops else p.carry]))
        for k in of_ys:
            like = value_of(cotangents[k + p.carry])
            copies[cotangents[k + p.carry]] = placeholder(f"ct_y_{k}", abstract(like, like.shape))
        stored = [(n, placeholder(f"kept_{i}", _store(value_of(n)))) for i, n in enumerate(kept.saved)]
        for k in read:
            copies[self.own[p.carry + k]] = placeholder(f"x_{k}", value_of(self.own[p.carry + k]))
        for n in (*self.own[p.carry + p.xs :], *self.extra):
            copies[n] = placeholder(n.name, value_of(n))
        for n, at in stored:
            copies[n] = _restore(new, at, value_of(n))
        for node in self.graph.graph.nodes:
            if node in kept.again and node not in copies:
                copies[node] = new.node_copy(node, copies.__getitem__)
        out = [self._gradient(new, copies, each[k], copies[cotangents[k]]) for k in carry]
        for k, total in zip(consts, sums, strict=True):
            out.append(_call(new, aten.add.Tensor, (total, copies[each[k]]), value_of(total)))
        out += [*(copies[each[k]] for k in xs), *(copies[n] for n in further)]
        new.output(out)
        n_carry = len(carry) + len(consts)
        examples = [value_of(n) for n in new.nodes if n.op == "placeholder"]
        count = len(examples) - len(self.extra)
        ys = [value_of(n) for n in out[n_carry:]]
        return Traced(graph_module(self.graph, new), examples[:count], self.closed, ys)

    def _gradient(self, new: Graph, copies: dict[Node, Node], node: Node | None, cotangent: Node) -> Node:
        if node is not None:
            return copies[node]
        return _call(new, aten.zeros_like.default, (cotangent,), value_of(cotangent))


def _column(node: Node, columns: list[Node | None], further: list[Node]) -> int:
    """Return which column of the loop back a factor is; where it is none, it is put out, and counted from -1 down."""
    if node in columns:
        return columns.index(node)
    if node not in further:
        further.append(node)
    return -1 - further.index(node)


def _like(value: Tensor) -> Tensor:
    return abstract(value, value.shape)


def _call(graph: Graph, target: Any, args: tuple, value: Tensor) -> Node:
    made = graph.call_function(target, args)
    made.meta["val"] = abstract(value, value.shape)
    return made


def order(value: Tensor) -> list[int]:
    """Return the axes of a tensor from the outermost in memory to the innermost.

    >>> order(torch.ones(2, 3).t())
    [1, 0]
    """
    return sorted(range(value.dim()), key=lambda d: (-value.stride(d), d))


def _store(value: Tensor) -> Tensor:
    return abstract(value, [value.shape[d] for d in order(value)])


def _contiguous(graph: Graph, node: Node) -> Node:
    value = value_of(node)
    if value.is_contiguous():
        return node
    made = graph.call_function(aten.permute.default, (node, order(value)))
    made.meta["val"] = _store(value)
    return made


def _restore(graph: Graph, node: Node, like: Tensor) -> Node:
    if like.is_contiguous():
        return node
    axes = order(like)
    made = graph.call_function(aten.permute.default, (node, [axes.index(d) for d in range(like.dim())]))
    made.meta["val"] = like
    return made
