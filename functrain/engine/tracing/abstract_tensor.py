"""Tensors without memory, which a function that is being traced computes with."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

from functrain.dispatch_contexts import outside_of_trace, unseen
from functrain.dispatch_state import dispatch_modes
from functrain.engine.tracing.meta.geometry import map_tensors, tensors_in
from functrain.engine.tracing.refusals import Refused
from functrain.errors import LeakedTensor

_OVER = (
    "a tensor of a trace that is over is used; it was kept in a variable outside of the traced function: return it "
    "instead"
)


class Abstract(Tensor):
    """A tensor without memory: what a function that is being traced computes with.

    Attributes:
        meta: a meta tensor of its shape, strides, offset and dtype; those of views of one tensor share their storage.
        node: the node that computes it, where it belongs to a trace.
        recording: that trace.
    """

    meta: Tensor
    node: Node | None
    recording: Any

    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore

    @staticmethod
    def __new__(cls, meta: Tensor, device: torch.device) -> "Abstract":
        """Return one like a meta tensor, that says it is on a device."""
        check_layout(meta)
        made = Tensor._make_wrapper_subclass(  # pyright: ignore
            cls, meta.shape, meta.stride(), meta.storage_offset(), dtype=meta.dtype, device=device
        )
        if meta.is_conj():
            torch._C._set_conj(made, True)  # pyright: ignore
        if meta.is_neg():
            torch._C._set_neg(made, True)  # pyright: ignore
        torch._C._set_throw_on_mutable_data_ptr(made)  # as `numpy` asks for, of plain tensors in a trace too
        made.meta, made.node, made.recording = meta, None, None
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        """Record where PyTorch has switched off the running trace, as it does to make a parameter; refuse elsewhere."""
        for tensor in tensors_in((args, tuple((kwargs or {}).values()))):
            if isinstance(tensor, Abstract) and tensor.recording is not None and tensor.recording.is_running():
                with tensor.recording.tracer:
                    return func(*args, **(kwargs or {}))
        raise LeakedTensor(_OVER)

    def data_ptr(self):
        """Refuse: there is no memory."""
        raise Refused("value") if dispatch_modes() else LeakedTensor(_OVER)

    def storage_offset(self):
        """Return the offset, which from now on belongs to the signature where it is that of an argument."""
        if self.recording is not None:
            self.recording.looks_at_offset(self)
        return super().storage_offset()

    def tolist(self):
        """Return the values as Python numbers, where they depend on no argument."""
        return self._ask(Tensor.tolist)

    def numpy(self, **options):
        """Return the values as an array, where they depend on no argument."""
        return self._ask(Tensor.numpy, **options)

    def __array__(self, *args, **kwargs):
        return self._ask(Tensor.__array__, *args, **kwargs)

    def _ask(self, question: Callable, *args: Any, **options: Any) -> Any:
        if self.recording is None or not dispatch_modes():
            raise LeakedTensor(_OVER)
        with outside_of_trace(), unseen():
            values = self.recording.value(self)
            return self.recording.lend(self, values, question(values, *args, **options))

    @property
    def data(self):
        """The same tensor without gradients; it cannot be set to another."""
        return self.detach()

    @data.setter
    def data(self, value):
        """Refuse."""
        raise Refused("effect", "the data of a tensor")

    def __format__(self, spec):
        return self.item().__format__(spec) if spec else repr(self)

    def __copy__(self):
        return self.detach()

    def __deepcopy__(self, memo):
        clone_of = self.detach().clone().requires_grad_(self.requires_grad)
        memo[id(self)] = clone_of
        return clone_of

    def __repr__(self, *, tensor_contents=None):
        return f"Abstract({str(self.dtype).removeprefix('torch.')}{list(self.shape)} on {self.device})"


def check_layout(tensor: Tensor) -> None:
    """Refuse a tensor that is sparse, or anything else than an array.

    >>> check_layout(torch.ones(2))
    """
    if tensor.layout is not torch.strided:
        raise Refused("layout", str(tensor.layout).removeprefix("torch."))


def abstract(like: Tensor, shape: Sequence[int] | None = None) -> Abstract:
    """Return a tensor without memory that is laid out like another, or has its dtype and device and a new shape.

    >>> abstract(torch.arange(6)[2:]).storage_offset(), abstract(torch.ones(2, 3), (4,)).shape
    (2, torch.Size([4]))
    """
    check_layout(like)
    with torch._C._DisableTorchDispatch():  # not an operation of the trace that may be running
        meta = _meta_like(like) if shape is None else torch.empty(shape, dtype=like.dtype, device="meta")
    return Abstract(meta, like.device)


def abstract_as_seen(tensor: Tensor) -> Abstract:
    """Return a tensor without memory that looks like one that is wrapped, from within the transform that wraps it.

    >>> abstract_as_seen(torch.ones(2, 3).t()).stride()
    (1, 3)
    """
    shape, stride = tuple(tensor.shape), tensor.stride()
    with torch._C._DisableTorchDispatch():
        return Abstract(torch.empty_strided(shape, stride, dtype=tensor.dtype, device="meta"), tensor.device)


def _meta_like(like: Tensor) -> Tensor:
    source = like.meta if isinstance(like, Abstract) else like
    elements = source.untyped_storage().nbytes() // source.itemsize
    meta = torch.empty(elements, dtype=source.dtype, device="meta")
    meta = meta.as_strided(source.shape, source.stride(), source.storage_offset())
    meta = torch.conj(meta) if source.is_conj() else meta
    return torch._neg_view(meta) if source.is_neg() else meta  # pyright: ignore


def clone_of(value: Tensor) -> Abstract:
    """Return what `clone` makes of a tensor of a trace.

    >>> clone_of(abstract(torch.ones(1)).meta.expand(3)).stride()
    (1,)
    """
    with torch._C._DisableTorchDispatch():
        meta = (value.meta if isinstance(value, Abstract) else value.to("meta")).clone()
    return Abstract(meta, value.device)


def settle(graph: Graph) -> None:
    """Cut what the nodes of a trace that is over say of their values off from all else.

    A tensor that the function computed with may have autograd history, which holds others in C++, where Python's
    garbage collector does not look; and each holds its node. So the graph would never be freed.

    >>> graph = Graph()
    >>> x = graph.placeholder("x")
    >>> x.meta["val"] = abstract(torch.ones(2)).requires_grad_()
    >>> settle(graph)
    >>> x.meta["val"].requires_grad
    False
    """
    with torch._C._DisableTorchDispatch():
        for node in graph.nodes:
            node.meta["val"] = map_tensors(_settle, node.meta.get("val"))


def _settle(value: Any) -> Abstract:
    value.node = value.recording = None
    return Abstract(value.meta, value.device) if value.requires_grad else value


def storage_of(value: Any) -> int | None:
    """Return what tells the memory of a tensor in a running trace: views of one have the same. None for no tensor.

    Of use while the function runs only: passes ask `graph.aliasing`, which derives it from the graph as it is then.

    >>> x = abstract(torch.ones(2))
    >>> storage_of(x) == storage_of(Abstract(x.meta[:1], x.device)), storage_of(abstract(x)) == storage_of(x)
    (True, False)
    """
    if not isinstance(value, Tensor):
        return None
    return (value.meta if isinstance(value, Abstract) else value).untyped_storage()._cdata
