"""A graph as Python source that people read: names from the function's arguments, its lines, shapes and dtypes."""

import keyword
import math
import operator
import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from functrain import tree
from functrain.engine.graph.queries import attribute, outputs, placeholders
from functrain.engine.graph.scan_node import Loop
from functrain.engine.tracing.places import AT

aten = torch.ops.aten
_SAME = (aten.detach.default, aten.alias.default)
"""What returns its argument, as far as one looks at values and memory."""
_MOST_SPELLED = 8
"""A number written in the code is spelled out; a tensor of at most so many elements too."""


def source_of(gm: GraphModule, name: str, arguments: Sequence[str], results: Sequence[str]) -> str:
    r"""Return a graph as Python source.

    Each operation stands below the line of the user's code that made it, with what it returns behind it. Where a graph
    has no scan, `exec` defines the function that it computes, given `torch`, `aten = torch.ops.aten` and what it closes
    over.

    Args:
        gm: the graph, as recorded.
        name: of the function.
        arguments: the dotted path of each tensor that it takes.
        results: the dotted path of each that it returns.

    >>> from functrain.engine.tracing.to_graph import trace
    >>> gm = trace(lambda w: [w.t() @ w], [torch.ones(2, 3)]).gm
    >>> print("\n".join(line for line in source_of(gm, "f", ["p.w"], [""]).splitlines() if "doctest" not in line))
    def f(
        p_w,  # float32(2, 3)
    ):
        t = aten.t(p_w)  # float32(3, 2)
        mm = aten.mm(t, p_w)  # float32(3, 3)
        return [
            mm,
        ]
    """
    return "\n".join(_Printer(gm, arguments).function(_identifier(name), results)) + "\n"


class _Printer:
    def __init__(self, gm: GraphModule, arguments: Sequence[str]) -> None:
        self.gm = gm
        self.names: dict[Node, str] = {}
        self.taken: set[str] = set()
        self.literals = {n: spelled for n in gm.graph.nodes if (spelled := _literal(gm, n)) is not None}
        for node, path in zip(placeholders(gm.graph), arguments, strict=False):
            self._name(node, _identifier(path))

    def function(self, name: str, results: Sequence[str]) -> Iterator[str]:
        graph: Graph = self.gm.graph
        inputs = placeholders(graph)
        yield f"def {name}({'' if inputs else '):'}"
        for node in inputs:
            yield f"    {self._of(node)},  # {_describe(node.meta.get('val'))}"
        if inputs:
            yield "):"
        for node in graph.find_nodes(op="get_attr"):
            if not all(user in self.literals for user in node.users):
                yield f"    # closed over: {self._of(node)}, {_describe(node.meta.get('val'))}"
        yield from self._body(graph)
        yield "    return ["
        for node, path in zip(outputs(graph), [*results, *[""] * len(outputs(graph))], strict=False):
            yield f"        {self._of(node)}," + (f"  # {path}" if path else "")
        yield "    ]"

    def _body(self, graph: Graph) -> Iterator[str]:
        place = None
        for node in graph.nodes:
            if node.op != "call_function" or (node.target is operator.getitem and _is_taken_apart(node.args[0])):
                continue
            if node.target in _SAME:
                self.names[node] = self._of(node.args[0])
                continue
            here = node.meta.get(AT)
            if here is not None and here != place:
                yield f"    # {here}"
                place = here
            yield from self._statement(node)

    def _statement(self, node: Node) -> Iterator[str]:
        returned: Any = node.meta.get("val")
        described = _describe(returned)
        comment = f"  # {described}" if described else ""
        if node in self.literals:
            yield f"    {self._of(node)} = {self.literals[node]}{comment}"
            return
        if isinstance(node.target, Loop):
            yield from self._loop_body(node)
        left = self._items(node, len(returned)) if _is_taken_apart(node) else self._of(node)
        yield f"    {'' if returned is None else f'{left} = '}{self._call(node)}{comment}"

    def _items(self, node: Node, count: int) -> str:
        users = {user.args[1]: user for user in node.users}
        names = (self._name(users[k], f"{node.name}_{k}") if k in users else "_" for k in range(count))
        return ", ".join(names) + ("," if count == 1 else "")

    def _loop_body(self, node: Node) -> Iterator[str]:
        loop: Any = node.target
        kinds = ("carry", "x", "const", "y")
        groups = [[f"{kind}_{k}" for k in range(n)] for kind, n in zip(kinds, loop.kind.counts, strict=True)]
        printer = _Printer(loop.body, [name for group in groups for name in group])
        body = printer.function(f"{node.name}_body", groups[0] + groups[3])
        yield from (f"    {line}" for line in body)

    def _call(self, node: Node) -> str:
        target: Any = node.target
        if isinstance(target, Loop):
            rest = ", ".join(self._of(n) for n in node.all_input_nodes)
            options = "".join(f", {name}=True" for name in ("reverse", "stops", "skips") if getattr(target.kind, name))
            return f"scan({node.name}_body, {target.kind.length}, {rest}{options})"
        if target is operator.getitem:
            return f"{self._spell(node.args[0])}[{node.args[1]}]"
        arguments = [*map(self._spell, node.args), *self._keywords(node)]
        return f"{_operation(target)}({', '.join(arguments)})"

    def _keywords(self, node: Node) -> Iterator[str]:
        return (f"{k}={self._spell(v)}" for k, v in node.kwargs.items() if k != "pin_memory" or v)

    def _spell(self, value: Any) -> str:
        if isinstance(value, Node):
            return self._of(value)
        if isinstance(value, (list, tuple)):
            inside = ", ".join(map(self._spell, value))
            return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"
        if isinstance(value, float) and not math.isfinite(value):
            return f'float("{value}")'
        return f'torch.device("{value}")' if isinstance(value, torch.device) else repr(value)

    def _of(self, node: Node) -> str:
        return self.names[node] if node in self.names else self._name(node, node.name)

    def _name(self, node: Node, wanted: str) -> str:
        name, count = wanted, 1
        while name in self.taken:
            name, count = f"{wanted}_{count}", count + 1
        self.names[node] = name
        self.taken.add(name)
        return name


def _is_taken_apart(node: Any) -> bool:
    is_list = isinstance(node.meta.get("val"), (list, tuple))
    return is_list and all(user.target is operator.getitem for user in node.users)


def _literal(gm: GraphModule, node: Node) -> str | None:
    """Return how a number that is written in the code is spelled, None for any other node."""
    if node.target is not aten.lift_fresh_copy.default:
        return None
    value = attribute(gm, str(node.args[0].target))  # pyright: ignore
    if not isinstance(value, Tensor) or hasattr(value, "recording") or value.numel() > _MOST_SPELLED:
        return None
    return f"torch.tensor({value.tolist()}, dtype={value.dtype})"


def _operation(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        namespace, name = target._schema.name.split("::")
        return f"{namespace}.{name}" if namespace == "aten" else f"torch.ops.{namespace}.{name}"
    return getattr(target, "__name__", str(target))


def _describe(value: Any) -> str:
    values = value if isinstance(value, (list, tuple)) else [value]
    return ", ".join(tree.describe(v) for v in values if isinstance(v, Tensor))


def _identifier(path: str) -> str:
    name = re.sub(r"\W+", "_", path).strip("_") or "f"
    return f"{name}_" if keyword.iskeyword(name) else f"_{name}" if name[0].isdigit() else name
