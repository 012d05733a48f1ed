"""The recording: a function runs on tensors without memory, and what is done to them is written down.

Every operation of PyTorch arrives here, below autograd and the transforms of `torch.func`, as a call of an
`OpOverload`. It becomes a node of a graph, and its results are tensors without memory that are laid out as
`meta.inference` says. Writes are recorded as writes; a later pass makes values of them.
"""

import operator
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _get_current_dispatch_mode,
    _get_current_dispatch_mode_stack,
)

from functrain.dispatch_contexts import outside_of_trace, unseen
from functrain.engine.tracing.abstract_tensor import Abstract, abstract, abstract_as_seen, settle, storage_of
from functrain.engine.tracing.asking import evaluate
from functrain.engine.tracing.lazy_module import call_node, graph_module
from functrain.engine.tracing.meta.devices import check_dtypes, device_of
from functrain.engine.tracing.meta.geometry import map_tensors, tensors_in
from functrain.engine.tracing.meta.inference import infer
from functrain.engine.tracing.operation_facts import (
    Facts,
    draws,
    facts,
    fills_in_place,
    has_open_shape,
    without_write,
    writes,
    written_tensors,
)
from functrain.engine.tracing.places import AT, Places
from functrain.engine.tracing.refusals import Refused
from functrain.engine.tracing.rows.copied_rows import CopiedRows

aten = torch.ops.aten
_OTHER_MEMORY = ("set_", "resize_", "resize_as_", "_resize_output_")
VALUES_ONLY = "values_only"
"""Under this name the metadata of a node says that the function asked for values without vectors."""


class Tracer(TorchDispatchMode):
    """The mode in which all operations go to the innermost of its recordings."""

    supports_higher_order_operators = True  # so that they come here, to be refused

    def __init__(self) -> None:
        super().__init__()
        self.recordings: list[Recording] = []
        self.thread = threading.get_ident()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # PyTorch would wrap `__torch_dispatch__` in something that imports the whole of torch._dynamo

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Record an operation."""
        if get_proxy_mode() is not None:  # it would see nothing of what is recorded here
            raise Refused("make_fx")
        if isinstance(func, torch._ops.HigherOrderOperator):
            raise Refused("operator")
        if not isinstance(func, torch._ops.OpOverload) or func.namespace == "profiler":
            return func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():  # what is asked of a tensor here is nothing that `Watching` wants to see
            return self.recordings[-1].call(func, args, kwargs or {})


def recording() -> "Recording | None":
    """Return the trace that the running code is recorded in, or None."""
    mode = _get_current_dispatch_mode()
    if mode is not None and not isinstance(mode, Tracer):  # a mode of the user's is on, inside the trace
        mode = next((one for one in reversed(_get_current_dispatch_mode_stack()) if isinstance(one, Tracer)), None)
    return None if mode is None else mode.recordings[-1]


def is_recorded() -> bool:
    """Return whether the running code is being traced by functrain.

    >>> is_recorded()
    False
    """
    return recording() is not None


@contextmanager
def record_apart() -> Iterator["Recording"]:
    """Record the operations of a block in a graph of its own, within another trace or not."""
    outer = recording()
    if outer is None:
        tracer = Tracer()
        with tracer:
            yield from _push(tracer)
    else:
        yield from _push(outer.tracer)


def _push(tracer: Tracer) -> Iterator["Recording"]:
    tracer.recordings.append(Recording(tracer))
    try:
        yield tracer.recordings[-1]
    finally:
        settle(tracer.recordings.pop().graph)


class Recording:
    """A graph that is being written.

    Attributes:
        tracer: the mode that calls it.
        graph: what has been done so far.
        constants: the tensors closed over, by the name of the attribute that will hold each.
        literals: the names of those constants that are numbers in the code.
        asked: the tensors closed over whose values Python looked at, each with these values.
        looked: what else Python asked of them, as (tensor, question, answer), by what tells the questions apart.
        offsets: the positions of the inputs whose storage offset was looked at.
        places: what finds the user's line of each operation.
        inferred: how the layouts of results were found, counted.
    """

    def __init__(self, tracer: Tracer) -> None:
        self.tracer, self.graph = tracer, Graph()
        self.constants: dict[str, Tensor] = {}
        self.literals: set[str] = set()
        self.asked: list[tuple[Tensor, Tensor]] = []
        self.looked: dict[Any, tuple[Tensor, Callable[[Tensor], Any], Any]] = {}
        self.offsets: set[int] = set()
        self.places = Places()
        self.inferred: Counter[str] = Counter()
        self._assumed: tuple[bool, str] | None = None
        self._values_only = False
        self._closed: dict[int, Abstract] = {}
        self._owners: dict[int | None, str] = {}
        self._inputs: dict[int | None, int] = {}
        self._rows = CopiedRows()
        self._lent: list[tuple[Any, bytes]] = []

    def input(self, like: Tensor, name: str) -> Abstract:
        """Add an argument that is laid out like a tensor; the name is for messages."""
        position = len(self._inputs)
        made = self._tie(abstract(like), self.graph.placeholder(f"arg_{position}"))
        self._owners[storage_of(made)] = name
        self._inputs[storage_of(made)] = position
        return made

    def finish(self, results: list[Tensor]) -> GraphModule:
        """Return the graph that returns these tensors."""
        for constant in self.constants.values():
            if constant.is_leaf and isinstance(constant.grad, Abstract):
                constant.grad = None
                raise Refused("backward")
        if any(array.tobytes() != before for array, before in self._lent):
            raise Refused("array")
        self.graph.output([self.abstract_of(t).node for t in results])
        return graph_module(self.constants, self.graph)  # pyright: ignore

    def abstract_of(self, tensor: Tensor) -> Abstract:
        """Return what stands for a tensor in this recording: any that it has not made is a constant of it."""
        if isinstance(tensor, Abstract):
            if tensor.recording is self:
                if self._rows.rows:
                    self._rows.check_read(storage_of(tensor))
                return tensor
            if tensor.recording not in self.tracer.recordings:
                raise Refused("leaked")
        elif type(tensor) is not Tensor and not isinstance(tensor, torch.nn.Parameter):
            raise Refused("subclass", type(tensor).__name__)
        made_for = self._closed.get(id(tensor))
        if made_for is None:
            made_for = self._closed[id(tensor)] = self._constant(tensor)
            self._owners[storage_of(made_for)] = "a tensor closed over"
        return made_for

    def note_copy(self, row: Tensor, source: Tensor, index: tuple) -> None:
        """Note that a tensor is a copy where PyTorch has a view."""
        self._rows.add(storage_of(row), storage_of(self.abstract_of(source)), index)

    def put_back(self, row: Tensor, target: Tensor, index: tuple) -> None:
        """Note that a tensor is being written to a place of another, from where it may come."""
        if self._rows.rows:
            self._rows.put_back(storage_of(row), storage_of(target), index)

    def _constant(self, tensor: Tensor) -> Abstract:
        name = f"constant_{len(self.constants)}"
        self.constants[name] = tensor  # alive, and so is its id
        return self._tie(abstract(tensor), self.graph.get_attr(name))

    def stand_in(self, tensor: Tensor) -> Abstract:
        """Return what stands for a tensor that transforms of `torch.func` wrap: a constant, as they see it."""
        made_for = self._closed.get(id(tensor))
        if made_for is None:
            name = f"constant_{len(self.constants)}"
            self.constants[name] = tensor
            with unseen():
                seen = abstract_as_seen(tensor)
            made_for = self._closed[id(tensor)] = self._tie(seen, self.graph.get_attr(name))
            self._owners[storage_of(made_for)] = "a tensor closed over"
        return made_for

    def has_made(self, tensor: Tensor) -> bool:
        """Return whether a tensor was made in this recording or in one within it, which may be over."""
        return isinstance(tensor, Abstract) and tensor.recording not in self.tracer.recordings[: self._depth()]

    def is_running(self) -> bool:
        """Return whether the running code is what is recorded here."""
        return self in self.tracer.recordings and self.tracer.thread == threading.get_ident()

    def _depth(self) -> int:
        return next(k for k, one in enumerate(self.tracer.recordings) if one is self)

    def value(self, tensor: Tensor) -> Tensor:
        """Return the values of a tensor that depends on no argument; refuse for others."""
        with outside_of_trace():
            return evaluate(self, self.abstract_of(tensor))

    def lend(self, tensor: Tensor, values: Tensor, made: Any) -> Any:
        """Return what was made of the values of a tensor; if it is an array of them, neither may be written to now."""
        place = getattr(made, "__array_interface__", None)
        with unseen():
            if place and values.numel() and place["data"][0] == values.data_ptr():
                self._lent.append((made, made.tobytes()))
                self._owners.setdefault(storage_of(self.abstract_of(tensor)), "a tensor that numpy() was called of")
        return made

    @contextmanager
    def assuming(self, answer: bool, otherwise: str) -> Iterator[None]:
        """Answer so where a block asks whether two tensors are equal; where that is wrong, the compiled call fails."""
        before, self._assumed = self._assumed, (answer, otherwise)
        try:
            yield
        finally:
            self._assumed = before

    @contextmanager
    def values_only(self) -> Iterator[None]:
        """Note of each operation of a block that nobody asked for vectors, see `graph.passes.without_vectors`."""
        before, self._values_only = self._values_only, True
        try:
            yield
        finally:
            self._values_only = before

    def looks_at_offset(self, tensor: Abstract) -> None:
        """Note that the storage offset of a tensor was looked at, which matters where its memory is an argument's."""
        if (position := self._inputs.get(storage_of(tensor))) is not None:
            self.offsets.add(position)

    def call(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Record a call of an operation, and return its results."""
        about = facts(func)
        if about.is_composite:
            with self.tracer:  # its parts come here again
                return func.decompose(*args, **kwargs)
        if func is aten.lift_fresh.default and not isinstance(args[0], Abstract):
            return self._literal(args[0])
        args, kwargs = (
            map_tensors(self.abstract_of, args),
            {k: map_tensors(self.abstract_of, v) for k, v in kwargs.items()},
        )
        if func is aten.masked_fill.Scalar and fills_in_place(args[0]):
            return self.call(aten.masked_fill_.Scalar, args, kwargs)
        if about.refused or has_open_shape(func, args, kwargs):
            return self._by_values(func, args, kwargs, about.refused or "shape")
        self._check(about, func, args, kwargs)
        if about.changes_shape:
            return self._reshape(func, args, kwargs)
        tensors = list(tensors_in((args, tuple(kwargs.values()))))
        named_device = kwargs.get("device")
        check_dtypes(func, tensors)
        device = device_of(func, tensors, named_device)
        on_meta = named_device is not None or (about.takes_device and not tensors)
        out = infer(func, args, kwargs, on_meta, self.inferred)
        return self._record(func, about, args, kwargs, tensors, out, device)

    def add(self, target: Callable, inputs: list[Tensor], outputs: list[Abstract], name: str) -> list[Abstract]:
        """Record a call of any function of tensors that returns such a list of tensors."""
        node = self.graph.create_node(
            "call_function", target, tuple(self.abstract_of(t).node for t in inputs), {}, name
        )  # pyright: ignore
        node.meta[AT] = self.places.here()
        return self._take_apart(node, outputs)

    def _literal(self, value: Tensor) -> Abstract:
        source = self._constant(value)
        self.literals.add(str(source.node.target))  # pyright: ignore
        return self._tie(abstract(value), self._node(aten.lift_fresh_copy.default, (source.node,), {}))

    def _by_values(self, func: Any, args: Any, kwargs: dict[str, Any], kind: str) -> Any:
        """Answer what depends on values, where these depend on no argument."""
        try:
            values, named = map_tensors(self.value, args), {k: map_tensors(self.value, v) for k, v in kwargs.items()}
        except Refused as refused:
            if refused.kind == "value" and self._assumed and func is aten.equal.default:
                return self._assumption(args, *self._assumed)
            raise (Refused(kind) if refused.kind == "value" else refused) from None
        with outside_of_trace(), torch.no_grad():
            out = func(*values, **named)
        return map_tensors(self._literal, out)

    def _assumption(self, operands: tuple[Abstract, Abstract], answer: bool, otherwise: str) -> bool:
        with self.tracer:
            equal = (operands[0] == operands[1]).all()
            aten._assert_async.msg(equal if answer else equal.logical_not(), otherwise)
        return answer

    def _check(self, about: Facts, func: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if about.draws and draws(func, args, kwargs):
            raise Refused("random", func._schema.name.removeprefix("aten::").rstrip("_"))
        if func._opname in _OTHER_MEMORY:
            raise Refused("resize")
        for tensor in written_tensors(func, args, kwargs):
            # A view of an argument may be given another shape; what it shows may not be changed.
            self._note_row(storage_of(tensor))
            is_free = about.changes_shape and tensor.node.op == "call_function"
            if not is_free and (memory := storage_of(tensor)) in self._owners:
                raise Refused("effect", self._owners[memory])
        if func._opname.startswith("as_strided"):  # it may look at the storage beyond the tensor
            self.looks_at_offset(args[0])

    def _note_row(self, memory: int | None) -> None:
        row = self._rows.rows.get(memory)
        if row is not None and row.source in self._owners:
            raise Refused("effect", self._owners[row.source])
        self._rows.note_write(memory)

    def _record(self, func: Any, about: Facts, args: Any, kwargs: Any, tensors: Any, out: Any, device: Any) -> Any:
        changes = writes(func, args, kwargs)
        if not changes and not about.returns_nothing and next(tensors_in(out), None) is None:
            return out  # a question about the arguments
        node = self._node(func, map_tensors(_node, args), {k: map_tensors(_node, v) for k, v in kwargs.items()})
        if changes:
            return self._rewrite(tensors, out, node, device)
        if isinstance(out, Tensor):
            return self._tie(Abstract(out, device), node)
        if out is None:
            return None
        devices = [t.device for t in args[0]] if func._opname.startswith("_foreach_") else [device] * len(out)
        parts = [Abstract(o, d) if isinstance(o, Tensor) else o for o, d in zip(out, devices, strict=True)]
        return type(out)(self._take_apart(node, parts)) if type(out) is tuple else self._take_apart(node, parts)

    def _node(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Node:
        node = call_node(self.graph, func, args, kwargs, func._opname)
        node.meta[AT] = self.places.here()
        if self._values_only:
            node.meta[VALUES_ONLY] = True
        return node

    def _take_apart(self, node: Node, parts: list[Any]) -> list[Any]:
        node.meta["val"] = parts
        for k, part in enumerate(parts):
            if isinstance(part, Abstract):
                self._tie(part, call_node(self.graph, operator.getitem, (node, k), {}, "getitem"))
        return parts

    def _rewrite(self, tensors: list[Abstract], out: Any, node: Node, device: torch.device) -> Any:
        """Return the results of an operation that writes: the arguments that it wrote to, and what it made besides."""
        by_meta = {id(t.meta): t for t in tensors}
        made = map_tensors(lambda meta: by_meta[id(meta)] if id(meta) in by_meta else Abstract(meta, device), out)
        node.meta["val"] = made
        if isinstance(made, Abstract):
            return self._tie(made, node) if made.recording is None else made
        for k, part in enumerate(made if made is not None else ()):
            if isinstance(part, Abstract) and part.recording is None:
                self._tie(part, call_node(self.graph, operator.getitem, (node, k), {}, "getitem"))
        return made

    def _reshape(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Abstract:
        """Record what gives a tensor another shape in place as the view that the tensor is from now on."""
        tensor = args[0]
        view = without_write(func)
        before = Abstract(tensor.meta, tensor.device)
        if tensor.node is not None:
            tensor.node.meta["val"] = before
        before.node, before.recording = tensor.node, self
        meta = infer(view, (before, *args[1:]), kwargs, on_meta=False)
        node = self._node(view, map_tensors(_node, (before, *args[1:])), kwargs)
        with torch._C._DisableTorchDispatch():
            torch.as_strided_(tensor, meta.shape, meta.stride(), meta.storage_offset())
        tensor.meta = meta
        return self._tie(tensor, node)

    def _tie(self, value: Abstract, node: Node) -> Abstract:
        value.node, value.recording = node, self
        node.meta["val"] = value
        return value


def _node(tensor: Abstract) -> Node | None:
    return tensor.node
