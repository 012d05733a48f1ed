"""The results of an operation in a trace: their form, which PyTorch or a rule tells, and their device."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from functrain.engine.abstract import Abstract, Refused, check_layout
from functrain.engine.forms import form_of
from functrain.errors import DtypeMismatch

aten = torch.ops.aten

_ANY_DEVICE = frozenset(
    (
        aten.copy_.default,
        aten.copy.default,
        aten.index.Tensor,
        aten.index_put.default,
        aten.index_put_.default,
        aten._unsafe_index.Tensor,
        aten._unsafe_index_put.default,
        aten.slice_scatter.default,
        aten.diagonal_scatter.default,
    )
)
"""Operations whose other arguments may be elsewhere than the first, where the result is."""

_ONE_DTYPE = frozenset(
    (
        aten.mm.default,
        aten.bmm.default,
        aten.addmm.default,
        aten.baddbmm.default,
        aten.mv.default,
        aten.dot.default,
        aten.convolution.default,
    )
)
"""Operations that take tensors of one dtype. Their kernels see to it, and PyTorch's rules for their form do not."""

_CONVOLUTIONS = {aten.convolution.default: 0, aten.convolution_backward.default: 1}
"""Convolution -> where in its arguments the input stands, before the weight."""
_CONVOLUTION_OPTIONS = ("stride", "padding", "dilation", "transposed", "output_padding", "groups")


def mapped(f: Callable[[Any], Any], value: Any) -> Any:
    """Return the argument of an operation with its tensors, if it has any, replaced.

    >>> mapped(torch.sum, [torch.ones(2), 3])
    [tensor(2.), 3]
    """
    if isinstance(value, Tensor):
        return f(value)
    if isinstance(value, (list, tuple)):
        values = [mapped(f, v) for v in value]
        return tuple(values) if type(value) is tuple else values
    return value


def tensors_in(value: Any) -> Iterator[Any]:
    """Yield the tensors of the argument of an operation.

    >>> len(list(tensors_in([torch.ones(2), 3])))
    1
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from tensors_in(v)


def _form(tensor: Abstract) -> Tensor:
    return tensor.form


def device_of(func: Any, tensors: list[Abstract], given: Any) -> torch.device:
    """Return the device of the results of an operation, by PyTorch's rule: scalars on the CPU go with anything.

    Args:
        func: the operation.
        tensors: its arguments.
        given: the device that it is told, or None.

    >>> device_of(torch.ops.aten.zeros.default, [], None)
    device(type='cpu')
    """
    if given is not None:
        device = torch.device(given)
        return _of_this_thread(device) if device.type == "cuda" and device.index is None else device
    if not tensors or func in _ANY_DEVICE:
        return tensors[0].device if tensors else torch.device("cpu")
    first = tensors[0]
    for t in tensors[1:]:
        if t.device == first.device or _goes_anywhere(t):
            continue
        if not _goes_anywhere(first):
            name = func._schema.name.removeprefix("aten::")
            raise Refused("device", f"{name} combines tensors on {first.device} and {t.device}")
        first = t
    return first.device


def check_dtypes(func: Any, tensors: list[Abstract]) -> None:
    """Raise `DtypeMismatch` where an operation would fail when it is run, as its tensors are of several dtypes.

    >>> check_dtypes(torch.ops.aten.mul.Tensor, [torch.ones(1), torch.ones(1, dtype=torch.float64)])
    """
    if func in _ONE_DTYPE and any(t.dtype is not tensors[0].dtype for t in tensors):
        name = func._schema.name.removeprefix("aten::")
        dtypes = ", ".join(str(t.dtype).removeprefix("torch.") for t in tensors)
        raise DtypeMismatch(f"{name} takes tensors of one dtype, got {dtypes}; convert them with tree.to(tree, dtype)")


def _of_this_thread(device: torch.device) -> torch.device:
    return torch.device(device.type, torch.cuda.current_device())


def _goes_anywhere(tensor: Tensor) -> bool:
    return tensor.dim() == 0 and tensor.device.type == "cpu"


def run(func: Any, args: Any, kwargs: dict[str, Any], on_meta: bool) -> Any:
    """Return meta tensors of the form of the results of an operation.

    Args:
        func: the operation.
        args: its arguments, tensors without memory among them.
        kwargs: further ones.
        on_meta: whether it is told a device, or must be told one because no argument is a tensor.
    """
    if func._opname.startswith(("linalg_", "_linalg_")):
        return _run_on_zeros(func, args, kwargs)  # the layout depends on the device, which PyTorch's rules do not see
    forms = mapped(_form, args)
    named = {k: mapped(_form, v) for k, v in kwargs.items()}
    if on_meta:
        named = {**named, "device": torch.device("meta")}
        named.pop("pin_memory", None)
    try:
        out = form_of(func, forms, named)
    except NotImplementedError:  # only its kernel knows the form
        if func._schema.is_mutable:
            raise
        return _run_on_zeros(func, args, kwargs)
    return _as_convolution(func, args, out) if func in _CONVOLUTIONS else out


def _run_on_zeros(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    # Integers are mostly positions that begin with 1, as those of pivots; what is checked for errors has none as 0.
    number = 0 if func._opname == "_linalg_check_errors" else 1

    def zeros(t: Abstract) -> Tensor:
        made = torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device)
        return made.zero_() if t.is_floating_point() or t.is_complex() else made.fill_(number)

    out = func(*mapped(zeros, args), **{k: mapped(zeros, v) for k, v in kwargs.items()})
    for t in tensors_in(out):
        check_layout(t)
    return mapped(lambda t: torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="meta"), out)


def _as_convolution(func: Any, args: Any, out: Any) -> Any:
    """Return the forms with the memory layout that PyTorch's convolution on the device chooses."""
    at = _CONVOLUTIONS[func]
    values, weight, bias, *settings = args[at : at + 9]
    options: dict[str, Any] = dict(zip(_CONVOLUTION_OPTIONS, settings, strict=True))
    if weight.dim() == 3:  # along one axis is along two, of which the first has length one
        values, weight = (Abstract(t.form.contiguous().unsqueeze(2), t.device) for t in (values, weight))
        for name, other in (("stride", 1), ("padding", 0), ("dilation", 1), ("output_padding", 0)):
            options[name] = [other, *options[name]]
    options.update({"bias": None, "bias_sizes": bias} if at or bias is None else {"bias": bias})
    backend = torch._C._select_conv_backend(values, weight, **options)  # pyright: ignore
    layout = torch._C._conv_determine_backend_memory_format(values, weight, backend)  # pyright: ignore
    if at == 0:
        return _laid_out(out, layout)
    return _laid_out(out[0], layout), _laid_out(out[1], layout), out[2]


def _laid_out(form: Tensor | None, layout: torch.memory_format) -> Tensor | None:
    if form is None:
        return None
    if form.dim() == 3 and layout == torch.channels_last:
        return form.unsqueeze(2).to(memory_format=layout).squeeze(2)
    return form.to(memory_format=layout)
