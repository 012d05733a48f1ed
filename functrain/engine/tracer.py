"""The tracer: it runs a function on tensors that have a form and no memory, and writes down what is done to them.

Every operation of PyTorch arrives here, below autograd and the transforms of `torch.func`, as a call of an
`OpOverload`. It becomes a node of a graph, and its results are tensors without memory, of the form that `results` says.
`make_fx` with fake tensors does the same; it takes a second to import what it needs, and five times as long for each
operation.
"""

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode

from functrain.engine.abstract import Abstract, Refused, abstract, storage_of
from functrain.engine.results import check_dtypes, device_of, mapped, run, tensors_in

aten = torch.ops.aten
_INDEXING = (aten.index.Tensor, aten._unsafe_index.Tensor)


@attrs.frozen
class Facts:
    """What of an operation the tracer has to know, from its schema.

    Attributes:
        writes: the positions of the arguments that it changes.
        draws: whether it draws from the global generator.
        refused: "value" or "shape" where its result, or the form of it, depends on values; else "".
        is_composite: whether it is made of other operations, which are recorded instead.
        takes_device: whether it has an argument `device`.
        is_effect: whether it returns nothing.
    """

    writes: tuple[int, ...]
    draws: bool
    refused: str
    is_composite: bool
    takes_device: bool
    is_effect: bool


@cache
def facts(func: Any) -> Facts:
    """Return what the schema and the tags of an operation say.

    >>> facts(torch.ops.aten.add_.Tensor).writes, facts(torch.ops.aten.nonzero.default).refused
    ((0,), 'shape')
    """
    arguments, tags, has_kernel = func._schema.arguments, func.tags, torch._C._dispatch_has_kernel_for_dispatch_key
    by_value = torch.Tag.data_dependent_output in tags
    by_shape = torch.Tag.dynamic_output_shape in tags and func not in _INDEXING
    return Facts(
        tuple(k for k, a in enumerate(arguments) if a.alias_info is not None and a.alias_info.is_write),
        torch.Tag.nondeterministic_seeded in tags,
        "value" if by_value else "shape" if by_shape else "",
        has_kernel(func.name(), "CompositeImplicitAutograd") and not has_kernel(func.name(), "CPU"),
        any(a.name == "device" for a in arguments),
        not func._schema.returns,
    )


def draws(func: Any, args: Any, kwargs: Any) -> bool:
    """Return whether a call of an operation draws from PyTorch's global generator.

    >>> draws(torch.ops.aten.bernoulli.default, (torch.ones(2),), {})
    True
    """
    if not facts(func).draws:
        return False
    for k, argument in enumerate(func._schema.arguments):
        if argument.name in ("dropout_p", "dropout"):  # attention without dropout draws nothing
            given = args[k] if k < len(args) else kwargs.get(argument.name, argument.default_value)
            return given != 0
    return True


class Tracer(TorchDispatchMode):
    """The mode in which all operations go to the innermost of its recordings."""

    def __init__(self) -> None:
        super().__init__()
        self.recordings: list[Recording] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # PyTorch would wrap `__torch_dispatch__` in something that imports the whole of torch._dynamo

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Record an operation."""
        if get_proxy_mode() is not None:  # it would see nothing of what is recorded here
            raise Refused("make_fx")
        if not isinstance(func, torch._ops.OpOverload) or func.namespace == "profiler":
            return func(*args, **(kwargs or {}))
        return self.recordings[-1].call(func, args, kwargs or {})


def recording() -> "Recording | None":
    """Return the trace that the running code is recorded in, or None."""
    mode = _get_current_dispatch_mode()
    return mode.recordings[-1] if isinstance(mode, Tracer) else None


def is_recorded() -> bool:
    """Return whether the running code is being traced by functrain.

    >>> is_recorded()
    False
    """
    return recording() is not None


@contextmanager
def recorded() -> Iterator["Recording"]:
    """Record the operations of a block in a graph of its own, within another trace or not."""
    outer = recording()
    if outer is None:
        tracer = Tracer()
        with tracer:
            yield from _pushed(tracer)
    else:
        yield from _pushed(outer.tracer)


def _pushed(tracer: Tracer) -> Iterator["Recording"]:
    tracer.recordings.append(Recording(tracer))
    try:
        yield tracer.recordings[-1]
    finally:
        tracer.recordings.pop()


class Recording:
    """A graph that is being written.

    Attributes:
        tracer: the mode that calls it.
        graph: what has been done so far.
        constants: the tensors closed over, by the name of the attribute that will hold each.
    """

    def __init__(self, tracer: Tracer) -> None:
        self.tracer, self.graph = tracer, Graph()
        self.constants: dict[str, Tensor] = {}
        self._closed: dict[int, Abstract] = {}
        self._owners: dict[int | None, str] = {}
        self._literals: dict[int | None, Abstract] = {}

    def input(self, like: Tensor, name: str) -> Abstract:
        """Add an argument of the form of a tensor; the name is for messages."""
        made = self._tied(abstract(like), self.graph.placeholder(f"arg_{len(self._owners)}"))
        self._owners[storage_of(made)] = name
        return made

    def finish(self, results: list[Tensor]) -> GraphModule:
        """Return the graph that returns these tensors."""
        for constant in self.constants.values():
            if constant.is_leaf and isinstance(constant.grad, Abstract):
                constant.grad = None
                raise Refused("backward")
        self.graph.output([self.known(t).node for t in results])
        return GraphModule(self.constants, self.graph)  # pyright: ignore

    def known(self, tensor: Tensor) -> Abstract:
        """Return what stands for a tensor in this recording: any that it has not made is a constant of it."""
        if isinstance(tensor, Abstract):
            if tensor.recording is self:
                return tensor
            if tensor.recording not in self.tracer.recordings:
                raise Refused("leaked")
        elif type(tensor) is not Tensor and not isinstance(tensor, torch.nn.Parameter):
            raise Refused("subclass", type(tensor).__name__)
        found = self._closed.get(id(tensor))
        if found is None:
            name = f"constant_{len(self.constants)}"
            self.constants[name] = tensor  # alive, and so is its id
            found = self._closed[id(tensor)] = self._tied(abstract(tensor), self.graph.get_attr(name))
            self._owners[storage_of(found)] = "a tensor closed over"
        return found

    def call(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Record a call of an operation, and return its results."""
        known = facts(func)
        if known.is_composite:
            with self.tracer:  # its parts come here again
                return func.decompose(*args, **kwargs)
        if func is aten.lift_fresh.default and not isinstance(args[0], Abstract):
            return self._literal(args[0])
        args, kwargs = mapped(self.known, args), {k: mapped(self.known, v) for k, v in kwargs.items()}
        tensors = list(tensors_in((args, tuple(kwargs.values()))))
        if known.refused and len(tensors) == 1 and tensors[0].value is not None:  # a literal is asked for its value
            return func(tensors[0].value, *args[1:], **kwargs)
        self._check(known, func, args, kwargs)
        told = kwargs.get("device")
        check_dtypes(func, tensors)
        device = device_of(func, tensors, told)
        out = run(func, args, kwargs, on_meta=told is not None or (known.takes_device and not tensors))
        return self._record(func, known, args, kwargs, tensors, out, device)

    def add(self, target: Callable, inputs: list[Tensor], outputs: list[Abstract], name: str) -> list[Abstract]:
        """Record a call of any function of tensors that returns such a list of tensors."""
        node = self.graph.create_node("call_function", target, tuple(self.known(t).node for t in inputs), {}, name)  # pyright: ignore
        return self._taken_apart(node, outputs)

    def _literal(self, value: Tensor) -> Abstract:
        source = self.known(value)
        node = self._node(aten.lift_fresh_copy.default, (source.node,), {})
        made = self._tied(abstract(value), node)
        made.value = value
        self._literals[storage_of(made)] = made
        return made

    def _check(self, known: Facts, func: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if known.refused:
            raise Refused(known.refused)
        if known.draws and draws(func, args, kwargs):
            raise Refused("random", func._schema.name.removeprefix("aten::").rstrip("_"))
        if func in _INDEXING and any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1]):
            raise Refused("shape")
        for tensor in _written(known, func, args, kwargs):
            memory = storage_of(tensor)
            if memory in self._owners:
                raise Refused("effect", self._owners[memory])
            if memory in self._literals:
                self._literals[memory].value = None

    def _record(self, func: Any, known: Facts, args: Any, kwargs: Any, tensors: Any, out: Any, device: Any) -> Any:
        if not known.writes and not known.is_effect and next(tensors_in(out), None) is None:
            return out  # a question about the arguments
        node = self._node(func, mapped(_node, args), {k: mapped(_node, v) for k, v in kwargs.items()})
        if known.writes:
            return self._rewritten(tensors, out, node)
        if isinstance(out, Tensor):
            return self._tied(Abstract(out, device), node)
        if out is None:
            return None
        devices = [t.device for t in args[0]] if func._opname.startswith("_foreach_") else [device] * len(out)
        parts = [Abstract(o, d) if isinstance(o, Tensor) else o for o, d in zip(out, devices, strict=True)]
        return type(out)(self._taken_apart(node, parts)) if type(out) is tuple else self._taken_apart(node, parts)

    def _node(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Node:
        return self.graph.create_node("call_function", func, args, kwargs, func._opname)

    def _taken_apart(self, node: Node, parts: list[Any]) -> list[Any]:
        node.meta["val"] = parts
        for k, part in enumerate(parts):
            if isinstance(part, Abstract):
                self._tied(part, self.graph.call_function(operator.getitem, (node, k)))
        return parts

    def _rewritten(self, tensors: list[Abstract], out: Any, node: Node) -> Any:
        """Return the results of an operation that writes: the arguments that it wrote to, which may have a new form."""
        by_form = {id(t.form): t for t in tensors}
        for t in tensors:
            if t.shape != t.form.shape or t.stride() != t.form.stride():
                _restride(t)
        node.meta["val"] = mapped(lambda form: by_form.get(id(form), form), out)
        return node.meta["val"]

    def _tied(self, value: Abstract, node: Node) -> Abstract:
        value.node, value.recording = node, self
        node.meta["val"] = value
        return value


def _restride(tensor: Abstract) -> None:
    # What changes the shape of a tensor in place (`unsqueeze_`) has done so to the form.
    form = tensor.form
    try:
        with torch._C._DisableTorchDispatch():
            torch.as_strided_(tensor, form.shape, form.stride(), form.storage_offset())
    except RuntimeError:
        raise Refused("resize") from None


def _node(tensor: Abstract) -> Node | None:
    return tensor.node


def _written(known: Facts, func: Any, args: Any, kwargs: dict[str, Any]) -> Iterator[Abstract]:
    for k in known.writes:
        yield from tensors_in(args[k] if k < len(args) else kwargs.get(func._schema.arguments[k].name))
