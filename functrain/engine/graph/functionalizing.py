"""From a graph with writes to its own values to a graph without: each write makes a new value of the whole memory.

What is read later reads the new value, through the same views as before. So the values, and how they are laid out,
are those of the recorded graph.
"""

import operator
from typing import Any

import attrs
import torch
from torch.fx import Graph, GraphModule, Node

from functrain.engine.graph.aliasing import aliases
from functrain.engine.graph.in_place import InPlace, Operand, View
from functrain.engine.tracing.abstract_tensor import storage_of
from functrain.engine.tracing.lazy_module import copy_node, graph_module
from functrain.engine.tracing.meta.geometry import tensors_in
from functrain.engine.tracing.meta.inference import infer
from functrain.engine.tracing.operation_facts import argument, draws, without_write
from functrain.engine.tracing.operation_facts import writes as call_writes
from functrain.engine.tracing.undeclared import UNDECLARED_ALIASES

aten = torch.ops.aten


def writes(node: Node) -> bool:
    """Return whether a node changes one of its arguments."""
    return isinstance(node.target, torch._ops.OpOverload) and bool(call_writes(node.target, node.args, node.kwargs))  # pyright: ignore


def functionalize(gm: GraphModule) -> GraphModule:
    """Return a graph that computes what a recorded graph does, and writes to nothing.

    >>> from functrain.engine.tracing.to_graph import trace
    >>> gm = functionalize(trace(lambda x: [x.clone().mul_(2)], [torch.ones(2)]).gm)
    >>> [node.name for node in gm.graph.nodes if node.op == "call_function"]
    ['clone', 'mul']
    """
    new = _Functional(gm).run() if any(map(writes, gm.graph.nodes)) else _copy(gm.graph)
    for node in new.nodes:
        if node.target is aten._efficientzerotensor.default:  # of forward derivatives: a plan could not write to it
            node.target = aten.zeros.default
    return graph_module(gm, new)


_SAME = (aten.detach.default, aten.alias.default)
"""Views that show their tensor as it is, which a graph without gradients does not need."""


def _copy(graph: Graph) -> Graph:
    new, made = Graph(), {}
    for node in graph.nodes:
        if node.op == "output":
            new.output(torch.fx.map_arg(node.args[0], made.__getitem__))
        else:
            made[node] = made[node.args[0]] if node.target in _SAME else copy_node(new, node, made.__getitem__)
    return new


@attrs.define
class _Memory:
    """The memory that a value and its views share: the node that holds all of it now, and how often it was written."""

    now: Node
    version: int = 0


class _Functional:
    """The graph without writes, as it is being made."""

    def __init__(self, gm: GraphModule) -> None:
        self.old, self.new = gm.graph, Graph()
        self.memories: dict[Node, _Memory] = {}
        self.root: dict[Node, Node] = {}  # a value or a view -> the value whose memory it shows
        self.parent: dict[Node, Node] = {}  # a view -> what it is made from, by one operation
        self.made: dict[Node, tuple[int, Node]] = {}  # a view -> its node in the new graph, and of which version it is

    def run(self) -> Graph:
        for node in self.old.nodes:
            if node.op == "output":
                self.new.output(torch.fx.map_arg(node.args[0], self.current))
            elif writes(node):
                self._write(node)
            elif (source := _view(node)) is not None:
                self.parent[node], self.root[node] = source, self.root[source]
                self._replay(node)
            elif node not in self.root:  # a result of a write is there already
                self._own(node, copy_node(self.new, node, self.current))
        return self.new

    def _own(self, node: Node, made: Node) -> None:
        self.root[node], self.memories[node] = node, _Memory(made)

    def current(self, node: Node) -> Node:
        """Return the node of the new graph that has the values that a node of the old one has at this point."""
        memory = self.memories[self.root[node]]
        if node not in self.parent:
            return memory.now
        version, made = self.made[node]
        return made if version == memory.version else self._replay(node)

    def _replay(self, node: Node) -> Node:
        made = self.current(node.args[0]) if node.target in _SAME else copy_node(self.new, node, self.current)  # pyright: ignore
        self.made[node] = self.memories[self.root[node]].version, made
        return made

    def _change(self, root: Node, made: Node) -> None:
        memory = self.memories[root]
        memory.now, memory.version = made, memory.version + 1

    def _write(self, node: Node) -> None:
        func: Any = node.target
        changed: list[Node] = []
        for k in call_writes(func, node.args, node.kwargs):  # pyright: ignore
            torch.fx.map_arg(argument(func, k, node.args, node.kwargs), changed.append)  # pyright: ignore
        roots = list(dict.fromkeys(self.root[n] for n in changed))
        plain = self._plainly(func, node, changed)
        if plain is not None:
            self._change(roots[0], plain)
        elif roots:
            self._in_place(func, node, roots)
        else:  # what it may write to was not passed
            self._own(node, copy_node(self.new, node, self.current))

    def _plainly(self, func: Any, node: Node, changed: list[Node]) -> Node | None:
        """Return an elementwise write to a whole memory as the same operation that writes nothing, or None."""
        if len(changed) != 1 or self.root[changed[0]] is not changed[0] or func is aten.copy_.default:
            return None
        other = without_write(func)
        if other is None or torch.Tag.pointwise not in func.tags or draws(func, node.args, node.kwargs):
            return None
        if any(self.root[n] is changed[0] and n is not changed[0] for n in node.all_input_nodes):
            return None  # what is read overlaps what is written
        target = changed[0].meta["val"]
        args, kwargs = torch.fx.map_arg((node.args, node.kwargs), _value)
        made = infer(other, args, kwargs, on_meta=False)
        if (made.shape, made.stride(), made.dtype) != (target.shape, target.stride(), target.dtype):
            return None
        args, kwargs = torch.fx.map_arg((node.args, node.kwargs), self.current)
        new = self.new.create_node("call_function", other, args, kwargs, other._opname)  # pyright: ignore
        new.meta = {**node.meta, "val": target}
        return new

    def _in_place(self, func: Any, node: Node, roots: list[Node]) -> None:
        operands: list[Node] = []

        def operand(n: Node) -> Any:
            if self.root[n] in roots:
                return View(roots.index(self.root[n]), self._steps(n))
            operands.append(self.current(n))
            return Operand(len(operands) - 1)

        args, kwargs = _map_over(operand, node.args), _map_over(operand, node.kwargs)
        new = _new_results(func)
        target = InPlace(func, len(roots), args, kwargs, new)
        memories = [self.memories[r].now for r in roots]
        call = self.new.create_node("call_function", target, (*memories, *operands), {}, func._opname)  # pyright: ignore
        call.meta = {**node.meta, "val": [*map(_value, roots)]}
        for root in roots:
            self._change(root, self._item(call, roots.index(root), _value(root)))
        self._own_new(node, call, new)

    def _own_new(self, node: Node, call: Node, new: tuple[int, ...] | None) -> None:
        """Enter what an operation that writes returns besides: items of the node in the old graph, or the node."""
        if new is None:
            call.meta["val"].append(_value(node))
            self._own(node, self._item(call, len(call.meta["val"]) - 1, _value(node)))
            return
        users = {n.args[1]: n for n in node.users if n.target is operator.getitem}
        for k in new:
            value = node.meta["val"][k]
            call.meta["val"].append(value)
            if k in users:
                self._own(users[k], self._item(call, len(call.meta["val"]) - 1, value))

    def _item(self, call: Node, k: int, value: Any) -> Node:
        item = self.new.call_function(operator.getitem, (call, k))
        item.meta["val"] = value
        return item

    def _steps(self, node: Node) -> tuple:
        steps = []
        while node in self.parent:
            steps.append((node.target, node.args[1:], node.kwargs))
            node = self.parent[node]
        return tuple(steps[::-1])


def _value(node: Node) -> Any:
    return node.meta["val"]


def _map_over(f: Any, value: Any) -> Any:
    if isinstance(value, Node):
        return f(value)
    if isinstance(value, (list, tuple)):
        return tuple(_map_over(f, v) for v in value) if type(value) is tuple else [_map_over(f, v) for v in value]
    return {k: _map_over(f, v) for k, v in value.items()} if isinstance(value, dict) else value


def _view(node: Node) -> Node | None:
    """Return what a node is a view of, or None."""
    source = node.args[0] if node.op == "call_function" and node.args else None
    if not isinstance(source, Node):
        return None
    if node.target is operator.getitem:
        return source if _view(source) is not None else None
    if not isinstance(node.target, torch._ops.OpOverload) or not any(aliases(node.target)):
        return None
    hidden = str(node.target) in UNDECLARED_ALIASES  # of these some return new memory at times
    return None if hidden and not _share(node.meta["val"], source.meta["val"]) else source


def _share(value: Any, source: Any) -> bool:
    return all(storage_of(t) == storage_of(source) for t in tensors_in(value))


def _new_results(func: Any) -> tuple[int, ...] | None:
    """Return which results of an operation that writes are new tensors, as `InPlace.new` has it."""
    returned = func._schema.returns
    new = tuple(k for k, r in enumerate(returned) if r.alias_info is None)
    return None if len(returned) == 1 and new and not _is_list(returned[0]) else new


def _is_list(returned: Any) -> bool:
    return "List" in str(returned.type)
