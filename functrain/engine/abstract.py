"""Tensors without memory, which a function that is being traced computes with."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from functrain.engine.interpreters import dispatch_modes
from functrain.errors import LeakedTensor

_OVER = (
    "a tensor of a trace that is over is used; it was kept in a variable outside of the traced function: return it "
    "instead"
)


class Refused(Exception):
    """The running function does what a trace cannot hold; `trace.py` says so in words, and it never leaves the engine.

    Attributes:
        kind: "value", "shape", "effect", "random", "device", "layout", "subclass", "make_fx", "resize" or "leaked".
        what: the name of what it did it to, or with.
    """

    def __init__(self, kind: str, what: str = "") -> None:
        super().__init__(kind, what)
        self.kind, self.what = kind, what


class Abstract(Tensor):
    """A tensor without memory: what a function that is being traced computes with.

    Attributes:
        form: a meta tensor of its shape, strides and dtype; those of views of one tensor share their storage.
        node: the node that computes it, where it belongs to a trace.
        recording: that trace.
        value: the tensor itself, where it is written as a number in the code.
    """

    form: Tensor
    node: Node | None
    recording: Any
    value: Tensor | None

    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore

    @staticmethod
    def __new__(cls, form: Tensor, device: torch.device) -> "Abstract":
        """Return one of a form, that says it is on a device."""
        check_layout(form)
        made = Tensor._make_wrapper_subclass(  # pyright: ignore
            cls, form.shape, form.stride(), form.storage_offset(), dtype=form.dtype, device=device
        )
        if form.is_conj():
            torch._C._set_conj(made, True)  # pyright: ignore
        if form.is_neg():
            torch._C._set_neg(made, True)  # pyright: ignore
        made.form, made.node, made.recording, made.value = form, None, None, None
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        """Refuse: this is only reached outside of a trace."""
        raise LeakedTensor(_OVER)

    def data_ptr(self):
        """Refuse: there is no memory."""
        raise Refused("value") if dispatch_modes() else LeakedTensor(_OVER)

    @property
    def data(self):
        """The same tensor without gradients; it cannot be set to another."""
        return self.detach()

    @data.setter
    def data(self, value):
        """Refuse."""
        raise Refused("effect", "the data of a tensor")

    def __format__(self, spec):
        if spec:
            raise Refused("value")
        return repr(self)

    def __copy__(self):
        return self.detach()

    def __deepcopy__(self, memo):
        return self.clone()

    def __repr__(self, *, tensor_contents=None):
        return f"Abstract({str(self.dtype).removeprefix('torch.')}{list(self.shape)} on {self.device})"


def check_layout(tensor: Tensor) -> None:
    """Refuse a tensor that is sparse, or anything else than an array.

    >>> check_layout(torch.ones(2))
    """
    if tensor.layout is not torch.strided:
        raise Refused("layout", str(tensor.layout).removeprefix("torch."))


def abstract(like: Tensor, shape: Sequence[int] | None = None) -> Abstract:
    """Return a tensor without memory that has the form of another, or its dtype and device and a contiguous shape.

    >>> abstract(torch.ones(2, 3)).shape, abstract(torch.ones(2, 3), (4,)).shape
    (torch.Size([2, 3]), torch.Size([4]))
    """
    check_layout(like)
    with torch._C._DisableTorchDispatch():  # not an operation of the trace that may be running
        if shape is None:
            form = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device="meta")
            form = torch.conj(form) if like.is_conj() else form
            form = torch._neg_view(form) if like.is_neg() else form  # pyright: ignore
        else:
            form = torch.empty(shape, dtype=like.dtype, device="meta")
    return Abstract(form, like.device)


def copied(value: Tensor) -> Abstract:
    """Return what `clone` makes of a tensor of a trace.

    >>> copied(abstract(torch.ones(1)).form.expand(3)).stride()
    (1,)
    """
    with torch._C._DisableTorchDispatch():
        form = (value.form if isinstance(value, Abstract) else value.to("meta")).clone()
    return Abstract(form, value.device)


def storage_of(value: Any) -> int | None:
    """Return what tells the memory of a tensor of a trace: views of one tensor have the same. None for no tensor.

    >>> x = abstract(torch.ones(2))
    >>> storage_of(x) == storage_of(Abstract(x.form[:1], x.device)), storage_of(abstract(x)) == storage_of(x)
    (True, False)
    """
    if not isinstance(value, Tensor):
        return None
    return (value.form if isinstance(value, Abstract) else value).untyped_storage()._cdata
