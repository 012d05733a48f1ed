"""From a pure function of tensors to a graph of operations: the trace, and what it tells when it fails."""

import contextlib
import linecache
import os
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import toolz
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from functrain.engine.abstract import Refused
from functrain.engine.graphs import copy, outputs, placeholders
from functrain.engine.tracer import facts, recorded
from functrain.errors import DeviceMismatch, FunctrainError, HiddenRandomness, LeakedTensor, NotTraceable, SideEffect
from functrain.random.leaf import PURE

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_TORCH = os.path.dirname(os.path.abspath(torch.__file__))
_NOT_MINE = (_TORCH, _HERE, os.path.dirname(os.path.abspath(toolz.__file__)), contextlib.__file__, "<functrain")


@attrs.frozen
class Traced:
    """A function of tensors as a graph.

    Attributes:
        gm: an `fx.GraphModule` that takes the tensors and returns a list of tensors.
        inputs: a tensor without memory for each, of its shape, strides, dtype and device.
        seconds: how long it took.
    """

    gm: GraphModule
    inputs: list[Tensor]
    seconds: float

    @property
    def placeholders(self) -> list[Node]:
        """The nodes of the inputs."""
        return placeholders(self.gm.graph)

    @property
    def results(self) -> list[Any]:
        """The nodes of the results."""
        return outputs(self.gm.graph)

    @property
    def constants(self) -> list[Any]:
        """What the graph closes over."""
        return [getattr(self.gm, n.target) for n in self.gm.graph.nodes if n.op == "get_attr"]  # pyright: ignore


def trace(f: Callable[..., list[Tensor]], tensors: list[Tensor], names: list[str] | None = None) -> Traced:
    """Run a function on tensors without memory and return the operations that it performed.

    Args:
        f: a function of tensors that returns a list of tensors.
        tensors: what to trace it with; only their form counts.
        names: the name of each, for messages.

    Raises:
        NotTraceable: the function looks at the values of a tensor.
        SideEffect: it changes one in place.
        HiddenRandomness: it draws from the global generator.
        DeviceMismatch: it combines tensors of different devices.

    >>> trace(lambda x: [x.t() @ x], [torch.ones(2, 3)]).gm.code.split()[-1]
    '[mm]'
    """
    began = time.perf_counter()
    gm = _graph(f, tensors, names or [f"argument {k}" for k in range(len(tensors))])
    if any(writes(node) for node in gm.graph.nodes):
        gm = retraced(torch.func.functionalize(gm, remove="mutations"), gm)
    return Traced(gm, [node.meta["val"] for node in placeholders(gm.graph)], time.perf_counter() - began)


def retraced(f: Callable[..., list[Tensor]], gm: GraphModule) -> GraphModule:
    """Return the graph of a function that does what another graph does, in other operations."""
    new = _graph(
        f, [node.meta["val"] for node in placeholders(gm.graph)], [node.name for node in placeholders(gm.graph)]
    )
    new.meta.update(gm.meta)
    return new


def _graph(f: Callable[..., list[Tensor]], tensors: list[Tensor], names: list[str]) -> GraphModule:
    with torch.no_grad(), _without_autocast_cache(), _readable(), recorded() as recording:
        inputs = [recording.input(t, name) for t, name in zip(tensors, names, strict=True)]
        return recording.finish(f(*inputs))


def expanded(gm: GraphModule, where: Callable[[Node], bool] = lambda node: True) -> GraphModule:
    """Return the graph with functrain's random operations as the pure tensor operations that they consist of.

    Args:
        gm: a graph that `trace` made.
        where: which of their nodes; all by default.

    >>> from functrain import random
    >>> gm = trace(lambda key: [random.bits(key, (3,))], [random.key(0)]).gm
    >>> [node.name for node in gm.graph.nodes if node.op == "call_function"]
    ['philox_words']
    >>> bool((expanded(gm)(random.key(0))[0] == gm(random.key(0))[0]).all())
    True
    """
    found = [node for node in gm.graph.nodes if node.target in PURE and where(node)]
    if not found:
        return gm
    names = {node.name for node in found}
    parts = GraphModule(gm, copy(gm.graph))
    for node in parts.graph.nodes:
        if node.name in names:
            node.target = PURE[node.target]
    parts.recompile()
    return retraced(parts, gm)


@contextlib.contextmanager
def _without_autocast_cache() -> Iterator[None]:
    # It would give tensors of the trace to what runs after it, and of what ran before to the trace.
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


def writes(node: Node) -> bool:
    """Return whether a node changes one of its arguments."""
    return isinstance(node.target, torch._ops.OpOverload) and bool(facts(node.target).writes)


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Turn what stops a trace into an error that shows the caller's line."""
    try:
        yield
    except FunctrainError:
        raise
    except Refused as refused:
        raise _explained(refused, _user_line(refused)) from None
    except RuntimeError as error:
        if any(words in str(error) for words in _NO_MEMORY):
            raise _explained(Refused("value"), _user_line(error)) from None
        error.add_note(f"raised while jit traced {_user_line(error)}")
        raise
    except Exception as error:
        error.add_note(f"raised while jit traced {_user_line(error)}")
        raise


_NO_MEMORY = ("data is not allocated", "is not supported for tensor subclasses", "doesn't have storage")
"""What PyTorch says when memory is asked of a tensor that has none."""


def _explained(refused: Refused, line: str) -> FunctrainError:
    error, words = _WORDS[refused.kind]
    return error(words.format(what=refused.what, line=line))


_WORDS: dict[str, tuple[type[FunctrainError], str]] = {
    "value": (
        NotTraceable,
        "Python looks at the values of a tensor at {line}; a trace holds no values: choose with "
        "torch.where(condition, a, b), loop with scan, or run this function without jit",
    ),
    "shape": (
        NotTraceable,
        "the shape of a result depends on the values of a tensor, at {line}; a trace has fixed shapes: keep all "
        "elements and choose with torch.where(condition, a, b), or give some zero weight",
    ),
    "leaked": (
        LeakedTensor,
        "a tensor of another trace, which is over, is used at {line}; it was kept in a variable outside of the traced "
        "function: return it instead",
    ),
    "layout": (NotTraceable, "jit takes dense tensors, got layout {what} at {line}; convert it with to_dense()"),
    "subclass": (
        NotTraceable,
        "jit takes plain tensors, got {what} at {line}; convert it with as_subclass(torch.Tensor)",
    ),
    "make_fx": (
        NotTraceable,
        "make_fx, which torch.func.linearize uses too, runs inside a trace at {line}; use jvp or vjp in its place, or "
        "call it outside of jit",
    ),
    "resize": (
        NotTraceable,
        "a tensor is given more memory in place at {line}; leave out= away, and return the new tensor",
    ),
    "effect": (
        SideEffect,
        "{what} is changed in place at {line}; return the new value instead (donate the old one to save memory)",
    ),
    "backward": (
        SideEffect,
        "backward() writes into the grad of a tensor closed over; take gradients with grad or value_and_grad, which "
        "return them",
    ),
    "random": (
        HiddenRandomness,
        "{what} draws from PyTorch's global generator at {line}; pass a key as an argument and draw with "
        "functrain.random",
    ),
    "device": (DeviceMismatch, "{what}, at {line}; move them with tree.to(tree, device)"),
}
"""Kind of refusal -> the error, and what it says."""


def _user_line(error: BaseException) -> str:
    # Where the traced function has no line of the user's, it is the one that called it.
    frames = [*traceback.extract_stack(), *traceback.extract_tb(error.__traceback__)]
    mine = [f for f in frames if not f.filename.startswith(_NOT_MINE) and "eval_with_key" not in f.filename]
    if not mine:
        return "an unknown line"
    last = mine[-1]
    code = linecache.getline(last.filename, last.lineno or 0).strip()
    return f"{os.path.basename(last.filename)}:{last.lineno}" + (f": `{code}`" if code else "")
