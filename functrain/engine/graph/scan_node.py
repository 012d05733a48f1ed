"""The loop: what a scan leaves in a graph, and what a backend does with it.

A `Loop` is the target of a node and works as it is; a backend makes it quick by `compile_loops`, which compiles its
body like any other graph and lets donated state live in its own buffers.
"""

import itertools
from collections.abc import Callable, Iterable

import attrs
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from functrain.engine.graph.aliasing import Aliasing
from functrain.engine.graph.passes.simplifying import simplify
from functrain.engine.graph.passes.without_vectors import without_vectors
from functrain.engine.graph.queries import copy, output_of, placeholders
from functrain.engine.tracing.abstract_tensor import abstract, clone_of
from functrain.engine.tracing.lazy_module import graph_module

Body = Callable[[list[Tensor]], list[Tensor]]
Pairs = tuple[tuple[int, int], ...]
Compile = Callable[[GraphModule, list[Tensor], Pairs], Body]
"""A backend: (graph, example inputs, pairs (input, output) to copy in) -> a function from inputs to outputs."""


@attrs.frozen
class Kind:
    """What a loop is, besides its body.

    Attributes:
        length: the number of steps; None for no bound, where `stops` ends it.
        counts: how many of the body's inputs are carry, xs, consts and ys.
        reverse: whether it begins at the last row.
        stops: whether the first carry, of bools, ends the loop before the step at which all of it is true.
        skips: whether the first of the xs, of bools, says at which steps anything is to be done.
    """

    length: int | None
    counts: tuple[int, int, int, int]
    reverse: bool = False
    stops: bool = False
    skips: bool = False


class Loop:
    """The target of the node that a scan leaves in a graph: (carry, xs, consts, all flat) -> [carry, ys].

    Attributes:
        body: the graph of one step: placeholders are carry, a row of xs, consts, and a row of each output to write
            into; the outputs are carry and the row of ys.
        examples: tensors without memory like the body's inputs.
        kind: length, order, and what ends it.
        inplace: the positions of the carry whose buffers may be overwritten; the others are copied first.
        step: the compiled body, which writes carry and ys into their input buffers.
    """

    returns_new_memory = True

    def __init__(
        self,
        body: GraphModule,
        examples: list[Tensor],
        kind: Kind,
        inplace: frozenset[int] = frozenset(),
        step: Body | None = None,
    ):
        self.body, self.examples, self.kind = body, examples, kind
        self.inplace = inplace
        self.step = _interpret(body, self.pairs) if step is None else step
        # What the code generator of torch.fx wants of a function.
        self.__name__ = self.__qualname__ = f"scan_loop_{id(self)}"
        self.__module__ = __name__

    @property
    def pairs(self) -> Pairs:
        """The (input, output) pairs of the body whose output is copied into the input."""
        carry, xs, consts, ys = self.kind.counts
        before = carry + xs + consts
        return (*((i, i) for i in range(carry)), *((before + i, carry + i) for i in range(ys)))

    def with_compiled_body(self, compile: Compile, inplace: frozenset[int] = frozenset()) -> "Loop":
        """Return the same loop with its body compiled by a backend, nested loops included."""
        graph = copy(self.body.graph)
        without_vectors(graph)
        step = compile(simplify(graph_module(self.body, graph)), self.examples, self.pairs)
        return Loop(self.body, self.examples, self.kind, inplace, step)

    def graphs(self) -> list[GraphModule]:
        """Return the graphs inside."""
        return [self.body]

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        n_carry, n_xs, n_consts, _ = self.kind.counts
        carry = [t if i in self.inplace else _copy(t) for i, t in enumerate(tensors[:n_carry])]
        columns = [t.contiguous() for t in tensors[n_carry : n_carry + n_xs]]
        consts = list(tensors[n_carry + n_xs :])
        new = torch.zeros if self.kind.stops or self.kind.skips else torch.empty
        like = self.examples[n_carry + n_xs + n_consts :]
        ys = [new((self.kind.length, *t.shape), dtype=t.dtype, device=_device(tensors, t)) for t in like]  # pyright: ignore
        self._run(carry, self._rows([*columns, *ys]), consts, len(columns))
        return [*carry, *ys]

    def _rows(self, columns: list[Tensor]) -> Iterable[tuple[Tensor, ...]]:
        if not columns:
            return itertools.repeat((), *(() if self.kind.length is None else (self.kind.length,)))
        rows = zip(*(c.unbind(0) for c in columns), strict=True)
        return reversed(list(rows)) if self.kind.reverse else rows

    def _run(self, carry: list, rows: Iterable[tuple], consts: list, split: int) -> None:
        first = self.step
        # The first step of a first call compares what was predicted.
        checked = vars(first).pop("checked", None)
        now = first if checked is None else checked()
        stops, skips = self.kind.stops, self.kind.skips
        for row in rows:
            if stops and _whole(carry[0], torch.all):
                return
            if skips and not _whole(row[0], torch.any):
                continue
            now([*carry, *row[:split], *consts, *row[split:]])
            now = first


def _whole(flags: Tensor, of_all: Callable[[Tensor], Tensor]) -> bool:
    """Return what a loop's flags say together; of one flag it is the quickest to ask itself."""
    return bool(flags.item() if flags.dim() == 0 else of_all(flags))


def _device(tensors: tuple[Tensor, ...], like: Tensor) -> torch.device:
    """Return the device on which an output like this example stands; examples may be of another ordinal."""
    return like.device if not tensors or like.device.type != tensors[0].device.type else tensors[0].device


def _copy(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


def _interpret(body: GraphModule, pairs: Pairs) -> Body:
    def step(inputs: list[Tensor]) -> list[Tensor]:
        outputs = body(*inputs)  # none of them aliases an input, see `unalias`
        for i, o in pairs:
            if outputs[o] is not inputs[i]:
                inputs[i].copy_(outputs[o])
        return outputs

    return step


def loops(gm: GraphModule) -> list[Node]:
    """Return the nodes of a graph that are scans."""
    return [node for node in gm.graph.nodes if node.op == "call_function" and isinstance(node.target, Loop)]


def compile_loops(gm: GraphModule, compile: Compile, donated: Pairs = ()) -> Pairs:
    """Replace the loops of a graph by compiled ones, in place; return the pairs that are still to be copied in.

    A carry that comes straight from a donated input, used nowhere else, and goes straight back into it, is then
    carried in that input's own buffer.
    """
    left = list(donated)
    for node in loops(gm):
        mine = {pair: i for pair in left if (i := _carry(gm, node, pair)) is not None}
        left = [pair for pair in left if pair not in mine]
        node.target = node.target.with_compiled_body(compile, frozenset(mine.values()))  # pyright: ignore
    gm.recompile()
    return tuple(left)


def _carry(gm: GraphModule, loop: Node, pair: tuple[int, int]) -> int | None:
    """Return which carry of the loop lives in the donated buffer of this (input, output) pair, None for no."""
    inputs = placeholders(gm.graph)
    source, result = inputs[pair[0]], output_of(gm.graph).args[0][pair[1]]
    if set(source.users) != {loop} or loop.args.count(source) != 1:
        return None
    i = loop.args.index(source)
    n_carry = loop.target.kind.counts[0]  # pyright: ignore
    value = source.meta.get("val")
    if i >= n_carry or not isinstance(value, Tensor) or not value.is_contiguous():
        return None
    getters = [n for n in loop.users if n.args == (loop, i)]
    return i if getters == [result] and list(output_of(gm.graph).args[0]).count(result) == 1 else None


def lift_constants(gm: GraphModule) -> list[Tensor]:
    """Turn the tensors that a graph holds as attributes into further placeholders; return them in that order."""
    last = placeholders(gm.graph)[-1:]
    # A placeholder's target is its argument's name as it is; of a graph that was lifted before some may be gone since.
    taken = {node.target for node in placeholders(gm.graph)}
    names = (name for name in (f"const_{k}" for k in itertools.count()) if name not in taken)
    lifted: dict[int, Node] = {}
    tensors = []
    for node in [n for n in gm.graph.nodes if n.op == "get_attr"]:
        value = getattr(gm, node.target, None)
        if not isinstance(value, Tensor):
            continue
        if id(value) not in lifted:
            place = gm.graph.inserting_after(last[0]) if last else gm.graph.inserting_before(next(iter(gm.graph.nodes)))
            with place:
                lifted[id(value)] = gm.graph.placeholder(next(names))
            # What a transform wraps is laid out as its stand-in.
            lifted[id(value)].meta["val"] = abstract(node.meta.get("val", value))
            last = [lifted[id(value)]]
            tensors.append(value)
        node.replace_all_uses_with(lifted[id(value)])
        gm.graph.erase_node(node)
    for name in [n for n, t in gm.named_buffers() if any(t is x for x in tensors)]:
        delattr(gm, name)
    gm.recompile()
    return tensors


def unalias(gm: GraphModule, pairs: Pairs) -> None:
    """Clone the outputs of a graph that share memory with an input or an earlier output.

    Then copying outputs into inputs, in any order, cannot overwrite what is still to be read. An output that is
    the very input it is to be copied into, and nothing else, stays: nothing has to be done for it.
    """
    graph, output = gm.graph, output_of(gm.graph)
    inputs = placeholders(graph)
    aliasing = Aliasing(graph)
    taken = {aliasing.memory(n) for n in inputs}
    same = {o for i, o in pairs if output.args[0][o] is inputs[i]}
    done = []
    with graph.inserting_before(output):
        for o, node in enumerate(output.args[0]):
            if isinstance(node, Node) and o not in same:
                if aliasing.memory(node) in taken:
                    clone = graph.call_function(torch.ops.aten.clone.default, (node,))
                    clone.meta["val"] = clone_of(value_of(node))
                    node = clone
                else:
                    taken.add(aliasing.memory(node))
            done.append(node)
    output.args = (done,)
    gm.recompile()


def value_of(node: Node) -> Tensor:
    """Return the example value that a trace recorded for a node."""
    return node.meta["val"]
