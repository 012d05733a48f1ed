"""The `aten` backend: a graph becomes straight-line Python that calls PyTorch's operations below autograd.

There is no compiler: the function is ready in milliseconds, and costs little more than the operations themselves.
"""

import builtins
import functools
import itertools
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.dispatch_contexts import below_autocast, below_autograd, gradients_on
from functrain.engine.backends.aten.direct import quickest
from functrain.engine.backends.aten.memory_plan import IN_PLACE, NEVER, MemoryPlan, make_plan
from functrain.engine.backends.aten.predictions import check, check_ahead, is_predicted
from functrain.engine.backends.aten.schedule import FOREACH, Group
from functrain.engine.graph.in_place import InPlace, duplicate
from functrain.engine.graph.passes.expanding import expand
from functrain.engine.graph.passes.fusing import fuse
from functrain.engine.graph.passes.hoisting import hoist
from functrain.engine.graph.passes.simplifying import simplify
from functrain.engine.graph.queries import attribute, is_item, items_of, outputs, placeholders
from functrain.engine.graph.scan_node import compile_loops, loops
from functrain.engine.tracing.meta.geometry import is_dense, tensors_in
from functrain.engine.tracing.places import MADE_BY, origin_of
from functrain.operators import OVERWRITING

_SUMS = (torch.ops.aten.add.Tensor, torch.ops.aten.sub.Tensor)
"""Operations of which, on a CPU, the loop over a list takes four times as long with a tensor as with a list of it."""
_OF_NUMBERS = frozenset((*_SUMS, torch.ops.aten.mul.Tensor, torch.ops.aten.div.Tensor))
"""Operations that take 2.4 us with a number and 0.8 us with a tensor that holds it; of lists too."""

_COPY_ALL = torch._C._VariableFunctions._foreach_copy_  # pyright: ignore
_SMALL = 256
"""Elements up to which a group takes a number as a tensor of each value's shape: a fifth quicker than of no axes."""


def compile(
    gm: Any, example_inputs: list[Tensor], donated: tuple[tuple[int, int], ...] = ()
) -> Callable[[list[Tensor]], list[Tensor]]:
    """Return a function of a list of tensors that does what a graph says.

    Args:
        gm: an `fx.GraphModule` of tensors that returns a list of tensors, simplified; it is used up.
        example_inputs: not used; the graph knows the form of its inputs.
        donated: pairs (input, result): the result is put into the memory of the input, which is returned for it. The
            first line of the function that writes to such memory is its attribute `first_write`; `checked` makes the
            function that a first call runs; `kernels` and `in_place` say how many calls of kernels it makes.

    >>> from functrain.engine.tracing.to_graph import trace
    >>> traced = trace(lambda p, g: [p - 0.5 * g], [torch.ones(2), torch.ones(2)])
    >>> f = compile(traced.gm, traced.inputs, donated=((0, 0),))
    >>> p = torch.ones(2)
    >>> f([p, torch.ones(2)])[0] is p
    True
    """
    hoist(gm)
    parts = expand(gm, _off_cpu)
    gm = fuse(gm if parts is gm else simplify(parts))
    left = compile_loops(gm, compile, donated) if loops(gm) else donated
    return _Source(gm, make_plan(gm, left), left).function()


def _off_cpu(node: torch.fx.Node) -> bool:
    return any(t.device.type != "cpu" for t in tensors_in(node.meta["val"]))


_CHECK, _NODES = "check", "nodes"
"""The function that compares a value with its prediction, and what it was predicted by, in the code of a first call."""


class _Source:
    """The source of the function, as it is being written."""

    def __init__(self, gm: Any, plan: MemoryPlan, donated: tuple[tuple[int, int], ...]) -> None:
        self.gm, self.plan, self.donated = gm, plan, donated
        self.inputs = placeholders(gm.graph)
        self.results = outputs(gm.graph)
        self.constants: dict[str, Any] = {}
        self.count = itertools.count()
        self.numbers: dict[Any, Tensor] = {}
        self.ids: dict[int, str] = {}
        self.names = {n: f"x{k}" for k, n in enumerate(self.inputs)}
        self.names.update({n: self.names[i] for n, i in plan.home.items() if n is not i and i in self.names})
        self.lines: list[str] = []
        self.first_write = NEVER
        self.checked: list[Any] = []
        self.unchecked: list[Any] = []
        self.dead = self._last_uses()
        self.made_by: dict[int, tuple[Any, ...]] = {}  # line -> what is known of the operations that it calls
        self.loops = [t for t, step in enumerate(plan.steps) if getattr(step.nodes[0].target, "inplace", ())]

    def function(self) -> Callable:
        if self.inputs:
            self.lines.append(f"{', '.join(self.names[n] for n in self.inputs)}, = inputs")
        for t, step in enumerate(self.plan.steps):
            if self.first_write == NEVER and (t == self.plan.writes or t in self.loops):
                self.first_write = len(self.lines)
            before = len(self.lines)
            self._write(step)
            made = tuple(origin_of(n) for n in step.nodes)
            self.made_by.update(dict.fromkeys(range(before, len(self.lines)), made))
            self._check(step)
            self._free(t)
        check_ahead(self.unchecked)
        self.lines.append(f"return [{', '.join(self._finish())}]")
        run = self._make([line for line in self.lines if not line.startswith(_CHECK)])
        run.checked = functools.partial(self._make, self.lines)
        run.kernels = len(self.plan.steps) + len(self.plan.clones) + bool(self.plan.copies)
        run.in_place = sum(bool(step.in_place) for step in self.plan.steps) + bool(self.plan.copies)
        return run

    def _make(self, lines: list[str]) -> Any:
        body = "\n        ".join(lines)
        guards = ", ".join(f"{self._constant(g)}()" for g in (below_autograd, gradients_on, below_autocast))
        source = f"def run(inputs):\n    with {guards}:\n        {body}\n"
        checks = {_CHECK: check, _NODES: self.checked} if len(lines) == len(self.lines) else {}
        written = (k for k, line in enumerate(self.lines) if checks or not line.startswith(_CHECK))
        lines_made_by = {3 + at: self.made_by[k] for at, k in enumerate(written) if k in self.made_by}
        namespace = {**self.constants, **checks, MADE_BY: lines_made_by}
        exec(builtins.compile(source, "<functrain aten>", "exec"), namespace)
        run: Any = namespace["run"]
        before = self.lines[: self.first_write]
        left_out = 0 if checks else sum(line.startswith(_CHECK) for line in before)
        run.source, run.first_write = source, self.first_write + 3 - left_out
        return run

    def _check(self, step: Group) -> None:
        """Write the comparison of new values with their predictions, or put it among those to be made ahead."""
        predicted = [n for n in step.nodes if step.in_place is None and is_predicted(n)]
        if self.first_write != NEVER:
            self.unchecked += predicted if len(step.nodes) == 1 else []
            return
        for node in predicted:
            self.lines.append(f"{_CHECK}({_NODES}[{len(self.checked)}], {self.names[node]})")
            self.checked.append(node)

    def _last_uses(self) -> dict[int, list[str]]:
        """Return for each step the nodes whose variables nobody reads after it."""
        last: dict[Any, int] = {}
        for t, step in enumerate(self.plan.steps):
            for node in step.nodes:
                for n in (node, *node.all_input_nodes):
                    last[self.plan.home[n]] = t
        for node in (*self.results, *(r for r, _ in self.plan.copies)):
            last[self.plan.home[node]] = NEVER
        dead: dict[int, list[Any]] = {}
        for node, t in last.items():
            if node.op == "call_function" and t != NEVER:
                dead.setdefault(t, []).append(node)
        return dead

    def _free(self, t: int) -> None:
        names = [self.names[n] for n in self.dead.get(t, ()) if n in self.names]
        if names:
            self.lines.append(f"del {', '.join(names)}")

    def _write(self, step: Group) -> None:
        if len(step.nodes) > 1:
            self._write_group(step)
            return
        node = step.nodes[0]  # pyright: ignore
        if isinstance(node.target, InPlace):
            node.target = attrs.evolve(node.target, owned=frozenset(step.in_place or ()))
        if node.target in OVERWRITING:
            self._write_over(node, step.in_place or ())
            return
        if is_item(node) and node.args[0].target in OVERWRITING:
            return  # it has its name
        if step.in_place is None or isinstance(node.target, InPlace):
            name = self._name(node)
            self.lines.append(f"{name} = {self._call(node)}")
            return
        k = step.in_place[0]
        args = [node.args[k], *(a for j, a in enumerate(node.args) if j != k)]
        method = IN_PLACE[node.target]
        self.names[node] = self.names[self.plan.home[node]]
        rest = ", ".join([*(self._operand(node, a) for a in args[1:]), *self._keywords(node)])
        self.lines.append(f"{self._text(args[0])}.{method}({rest})")

    def _write_over(self, node: Any, free: tuple[int, ...]) -> None:
        """Write the call that puts results into its first arguments, of which those that are not free are copied."""
        f, count = OVERWRITING[node.target]
        items, texts, k = items_of(node), [], 0
        for tensors in node.args[:count]:
            inside = []
            for tensor in tensors:
                text = self._text(tensor)
                if k in free:
                    self.names[items[k]] = self.names[self.plan.home[items[k]]]
                else:
                    text = f"{self._constant(duplicate)}({text})"
                    text = f"({self._name(items[k])} := {text})" if k in items else text
                inside.append(text)
                k += 1
            texts.append(f"[{', '.join(inside)}]")
        texts += [self._text(a) for a in node.args[count:]]
        self.lines.append(f"{self._constant(f)}({', '.join(texts)})")

    def _write_group(self, step: Group) -> None:
        node = step.nodes[0]
        name = FOREACH[node.target] + ("_" if step.in_place else "")
        args = []
        for k, a in enumerate(node.args):
            shared = not isinstance(a, torch.fx.Node) or (k > 0 and a.meta["val"].shape != node.meta["val"].shape)
            if shared:
                args.append(self._common_text(step, a) if k > 0 else self._text(a))
            else:
                args.append("[" + ", ".join(self._text(n.args[k]) for n in step.nodes) + "]")
        call = f"{self._constant(getattr(torch, name))}({', '.join([*args, *self._keywords(node)])})"
        if step.in_place:
            for n in step.nodes:
                self.names[n] = self.names[self.plan.home[n]]
            self.lines.append(call)
        else:
            names = [self._name(n) for n in step.nodes]
            self.lines.append(f"{', '.join(names)}, = {call}")

    def _common_text(self, step: Group, value: Any) -> str:
        """Return the text of what is the same for all of a group: on a CPU a list is quicker than a tensor."""
        node = step.nodes[0]
        text = self._operand(node, value)
        number = not isinstance(value, torch.fx.Node)
        if node.meta["val"].device.type != "cpu" or (number and text == self._text(value)):
            return text
        likes = [n.meta["val"] for n in step.nodes]
        if number and all(is_dense(t) and t.numel() <= _SMALL for t in likes):
            return self._constant([self._full(t, value) for t in likes])
        return f"[{text}] * {len(likes)}" if node.target in _SUMS else text

    def _full(self, like: Tensor, value: Any) -> Tensor:
        """Return a constant that is laid out like a value, so that it does not decide how the result is laid out."""
        key = like.dtype, tuple(like.shape), like.stride(), repr(value)
        if key not in self.numbers:
            empty = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype)
            self.numbers[key] = empty.fill_(value)
        return self.numbers[key]

    def _finish(self) -> list[str]:
        returned = [self._text(n) for n in self.results]
        for k in sorted(self.plan.clones):
            self.lines.append(f"r{k} = {self._constant(duplicate)}({returned[k]})")
            returned[k] = f"r{k}"
        taken = {self.inputs[i]: k for i, k in self.donated}
        if self.plan.copies:
            if self.first_write == NEVER:
                self.first_write = len(self.lines)
            to = ", ".join(self.names[i] for _, i in self.plan.copies)
            what = ", ".join(returned[taken[i]] for _, i in self.plan.copies)
            self.lines.append(f"{self._constant(_COPY_ALL)}([{to}], [{what}])")
        for i, k in self.donated:
            returned[k] = self.names[self.inputs[i]]
        return returned

    def _name(self, node: Any) -> str:
        return self.names.setdefault(node, f"v{next(self.count)}")

    def _call(self, node: Any) -> str:
        target = node.target
        if is_item(node):
            return f"{self._text(node.args[0])}[{self._text(node.args[1])}]"
        arguments = ", ".join([*(self._operand(node, a) for a in node.args), *self._keywords(node)])
        return f"{self._constant(quickest(target))}({arguments})"

    def _keywords(self, node: Any) -> list[str]:
        return [f"{k}={self._text(v)}" for k, v in node.kwargs.items()]

    def _operand(self, node: Any, value: Any) -> str:
        """Return the text of an argument: where a number would be made a tensor at each call, a tensor made now."""
        if node.target not in _OF_NUMBERS or type(value) not in (int, float) or node.kwargs:
            return self._text(value)
        made, first = node.meta["val"], node.args[0]
        exact = made.dtype in (torch.float32, torch.float64) or (made.dtype is torch.int64 and type(value) is int)
        same = isinstance(first, torch.fx.Node) and first.meta["val"].dtype is made.dtype
        if not (exact and same and made.device.type == "cpu"):
            return self._text(value)
        key = made.dtype, type(value), repr(value)
        if key not in self.numbers:
            self.numbers[key] = torch.tensor(value, dtype=made.dtype)
        return self._constant(self.numbers[key])

    def _text(self, value: Any) -> str:
        if isinstance(value, torch.fx.Node):
            if value.op == "get_attr":
                return self._constant(attribute(self.gm, str(value.target)))
            return self.names[value]
        if isinstance(value, (list, tuple)):
            inside = ", ".join(self._text(v) for v in value)
            return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"
        if value is None or type(value) in (bool, int, str) or (type(value) is float and value - value == 0):
            return repr(value)
        return self._constant(value)

    def _constant(self, value: Any) -> str:
        if id(value) not in self.ids:
            self.ids[id(value)] = name = f"c{len(self.ids)}"
            self.constants[name] = value
        return self.ids[id(value)]
