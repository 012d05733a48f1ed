"""From a pure function of tensors to a graph of operations: the trace, and what it tells when it fails."""

import linecache
import logging
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.errors import DeviceMismatch, FunctrainError, HiddenRandomness, NotTraceable, SideEffect

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_TORCH = os.path.dirname(os.path.abspath(torch.__file__))


@attrs.frozen
class Traced:
    """A function of tensors as a graph.

    Attributes:
        gm: an `fx.GraphModule` that takes the tensors and returns a list of tensors.
        inputs: a fake tensor for each, which have shape, stride, dtype and device, but no memory.
        seconds: how long it took.
    """

    gm: Any
    inputs: list[Tensor]
    seconds: float

    @property
    def placeholders(self) -> list[Any]:
        """The nodes of the inputs."""
        return [n for n in self.gm.graph.nodes if n.op == "placeholder"]

    @property
    def results(self) -> list[Any]:
        """The nodes of the results."""
        return list(next(n for n in reversed(self.gm.graph.nodes) if n.op == "output").args[0])

    @property
    def constants(self) -> list[Any]:
        """What the graph closes over."""
        return [getattr(self.gm, n.target) for n in self.gm.graph.nodes if n.op == "get_attr"]


def trace(f: Callable[..., list[Tensor]], tensors: list[Tensor], names: list[str]) -> Traced:
    """Run a function on fake tensors and return the operations that it performed.

    Args:
        f: a function of tensors that returns a list of tensors.
        tensors: what to trace it with.
        names: the name of each, for messages.

    Raises:
        NotTraceable: the function looks at the values of a tensor.
        SideEffect: it changes one in place.
        HiddenRandomness: it draws from the global generator.
        DeviceMismatch: it combines tensors of different devices.
    """
    began = time.perf_counter()
    gm, fakes = _graph(f, tensors)
    offence = _offence(gm, names)
    if offence is not None:
        _complain(f, tensors, offence)
    if any(_mutates(node) for node in gm.graph.nodes):
        gm, fakes = _graph(_without_mutation(gm), tensors)
    return Traced(gm, fakes, time.perf_counter() - began)


def _graph(f: Callable, tensors: list[Tensor]) -> tuple[Any, list[Tensor]]:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    # Without a shape environment nothing is symbolic: a shape that depends on values raises instead.
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:  # new ones, as `mode.from_tensor` gives one fake for a tensor that is passed twice
        fakes = _fakes(tensors)
    with torch.no_grad(), _quiet(), _readable():
        return make_fx(f, tracing_mode="fake")(*fakes), fakes


def _fakes(tensors: list[Tensor]) -> list[Tensor]:
    return [torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device) for t in tensors]


@contextmanager
def _quiet() -> Iterator[None]:
    # PyTorch logs the traceback of a failing operation besides raising; the one that is raised is enough.
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


@contextmanager
def _readable() -> Iterator[None]:
    from torch._subclasses.fake_tensor import (
        DataDependentOutputException,
        DynamicOutputShapeException,
        FakeTensorDeviceMismatchError,
    )
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    try:
        yield
    except FunctrainError:
        raise
    except (DataDependentOutputException, GuardOnDataDependentSymNode) as error:
        raise NotTraceable(_looks_at_values(_user_line(error))) from None
    except DynamicOutputShapeException as error:
        raise NotTraceable(
            f"the shape of a result depends on the values of a tensor, at {_user_line(error)}; a trace has fixed "
            "shapes: keep all elements and choose with torch.where(condition, a, b), or give some zero weight"
        ) from None
    except FakeTensorDeviceMismatchError as error:
        raise DeviceMismatch(f"{error}, at {_user_line(error)}; move them with tree.to(tree, device)") from None
    except RuntimeError as error:
        if "data is not allocated" in str(error) or ".numpy() is not supported" in str(error):
            raise NotTraceable(_looks_at_values(_user_line(error))) from None
        error.add_note(f"raised while jit traced {_user_line(error)}")
        raise
    except Exception as error:
        error.add_note(f"raised while jit traced {_user_line(error)}")
        raise


def _looks_at_values(line: str) -> str:
    return (
        f"Python looks at the values of a tensor at {line}; a trace holds no values: choose with "
        "torch.where(condition, a, b), loop with scan, or run this function without jit"
    )


def _user_line(error: BaseException) -> str:
    return _line(traceback.extract_tb(error.__traceback__))


def _line(frames: Any) -> str:
    frames = [f for f in frames if not f.filename.startswith("<functrain")]
    mine = [f for f in frames if not f.filename.startswith((_TORCH, _HERE)) and "eval_with_key" not in f.filename]
    mine = mine or [f for f in frames if not f.filename.startswith(_TORCH)] or frames
    if not mine:
        return "an unknown line"
    last = mine[-1]
    code = linecache.getline(last.filename, last.lineno or 0).strip()
    return f"{os.path.basename(last.filename)}:{last.lineno}" + (f": `{code}`" if code else "")


def _mutates(node: Any) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and schema.is_mutable


def _written(target: Any) -> list[int]:
    """Return the positions of the arguments that an operation writes to."""
    arguments = enumerate(target._schema.arguments)
    return [k for k, a in arguments if a.alias_info is not None and a.alias_info.is_write]


def mutated(node: Any) -> list[Any]:
    """Return the arguments (nodes) that an operation writes to."""
    if not _mutates(node):
        return []
    found = []
    for k in _written(node.target):
        name = node.target._schema.arguments[k].name
        value = node.args[k] if k < len(node.args) else node.kwargs.get(name)
        found += value if isinstance(value, (list, tuple)) else [value]
    return [value for value in found if isinstance(value, torch.fx.Node)]


def draws(node: Any) -> bool:
    """Return whether a node draws from PyTorch's global generator."""
    return node.op == "call_function" and _draws(node.target, node.args, node.kwargs)


def _draws(target: Any, args: Any, kwargs: Any) -> bool:
    if torch.Tag.nondeterministic_seeded not in getattr(target, "tags", ()):
        return False
    for k, argument in enumerate(target._schema.arguments):
        if argument.name in ("dropout_p", "dropout"):  # attention without dropout draws nothing
            given = args[k] if k < len(args) else kwargs.get(argument.name, argument.default_value)
            return given != 0
    return True


def storage_of(node: Any) -> int | None:
    """Return what tells the memory of a node's value: views of one tensor have the same."""
    value = node.meta.get("val")
    return value.untyped_storage()._cdata if isinstance(value, Tensor) else None


def _offence(gm: Any, names: list[str]) -> tuple[str, str] | None:
    """Return (kind, name) of the first operation that a pure function must not do."""
    nodes = list(gm.graph.nodes)
    inputs = [n for n in nodes if n.op == "placeholder"]
    owner = {storage_of(n): name for n, name in zip(inputs, names, strict=True)}
    owner.update({storage_of(n): "a tensor closed over" for n in nodes if n.op == "get_attr"})
    owner.pop(None, None)
    for node in nodes:
        for target in mutated(node):
            if storage_of(target) in owner:
                return "effect", owner[storage_of(target)]
        if draws(node):
            return "random", node.target._schema.name.removeprefix("aten::").rstrip("_")
    return None


def _complain(f: Callable, tensors: list[Tensor], offence: tuple[str, str]) -> None:
    kind, name = offence
    line = _line_of(f, tensors, kind)
    if kind == "effect":
        raise SideEffect(
            f"{name} is changed in place at {line}; return the new value instead (donate the old one to save memory)"
        )
    raise HiddenRandomness(
        f"{name} draws from PyTorch's global generator at {line}; pass a key as an argument and draw with "
        "functrain.random"
    )


class _Found(Exception):
    """The operation that was looked for is about to be called; never leaves this module."""


def _line_of(f: Callable, tensors: list[Tensor], kind: str) -> str:
    """Return the line of the caller's code at which an operation is called that must not be."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        """Raise at the operation."""

        def __init__(self):
            super().__init__()
            self.made: set[int] = set()
            self.kept: list[Any] = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            written = [args[k] for k in _written(func) if k < len(args) and isinstance(args[k], Tensor)]
            at_effect = kind == "effect" and any(t.untyped_storage()._cdata not in self.made for t in written)
            if at_effect or (kind == "random" and _draws(func, args, kwargs or {})):
                raise _Found
            result = func(*args, **(kwargs or {}))
            if not any(a.alias_info for a in func._schema.returns):
                found = result if isinstance(result, (list, tuple)) else [result]
                storages = [t.untyped_storage() for t in found if isinstance(t, Tensor)]
                self.kept += storages  # alive, so that no address comes twice
                self.made.update(s._cdata for s in storages)
            return result

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    watch = Watch()
    with mode:
        fakes = _fakes(tensors)
    try:
        with torch.no_grad(), mode, watch:
            f(*fakes)
    except _Found as found:
        return _user_line(found)
    except Exception:  # the trace came through; where only this second run fails, the line stays unknown
        pass
    return "an unknown line"


def _without_mutation(gm: Any) -> Callable:
    return torch.func.functionalize(gm, remove="mutations")
