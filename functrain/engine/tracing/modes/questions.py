"""What Python asks of a tensor closed over besides its values: whether it requires gradients, how it is laid out.

No operation shows it, and it may be another at the next call: `w.requires_grad = False`, a new `w.grad`, another
`w.data`. The answer joins the signature.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functrain.dispatch_state import alive, level, plain
from functrain.engine.tracing.abstract_tensor import Abstract
from functrain.engine.tracing.recording import Recording

_ATTRIBUTES = (
    *("shape", "ndim", "dtype", "device", "layout", "itemsize", "nbytes"),
    *("requires_grad", "is_leaf", "retains_grad", "output_nr", "grad", "_grad", "grad_fn", "_grad_fn", "grad_dtype"),
    *("_version", "name", "names", "_base", "is_cpu", "is_cuda", "is_meta", "is_sparse", "is_quantized"),
    *("_backward_hooks", "_post_accumulate_grad_hooks"),
)
_METHODS = (
    *("size", "stride", "dim", "ndimension", "numel", "nelement", "__len__", "element_size", "storage_offset"),
    *("is_contiguous", "dim_order", "is_pinned", "is_shared", "is_inference", "is_conj", "is_neg", "_is_view"),
    *("is_complex", "is_floating_point", "is_signed", "get_device", "type", "__dlpack_device__"),
    *("_is_zerotensor", "has_names"),
)
_FUNCTIONS = (
    *("numel", "is_complex", "is_floating_point", "is_conj", "is_neg", "is_inference", "is_signed", "get_device"),
    "_is_zerotensor",
)
_MEMORY = ("untyped_storage", "_typed_storage", "storage")


def note(of: Recording, tensor: Tensor, question: Callable[[Tensor], Any], answer: Any, name: Any = None) -> None:
    """Note what Python was told of a tensor closed over; from now on it belongs to the signature.

    Args:
        of: the trace.
        tensor: which one.
        question: what is asked of it again at each call.
        answer: what it said; a tensor is compared by identity.
        name: what tells this question from others, without one the question itself.
    """
    for root in of.tracer.recordings:
        root.looked[id(tensor), name or question] = (tensor, question, answer)


def _asking(func: Callable) -> Callable:
    def ask(of: Recording, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        answer = func(tensor, *args, **kwargs)
        if type(tensor) is not Abstract and not isinstance(answer, Abstract):
            _note_answer(of, func, tensor, args, kwargs, answer)
        return answer

    return ask


def _note_answer(
    of: Recording, func: Callable, tensor: Tensor, args: tuple, kwargs: dict[str, Any], answer: Any
) -> None:
    inside = plain(alive(tensor))
    if isinstance(inside, Abstract):
        return
    if level(alive(tensor)) >= 0:  # what is asked of a transform's wrapper is settled by what is in it
        note(of, inside, _geometry, _geometry(inside))
    elif not isinstance(answer, Tensor) or func in _GIVING_TENSORS:
        note(of, inside, lambda t: func(t, *args, **kwargs), answer, (func, args, tuple(kwargs.items())))


def _geometry(tensor: Tensor) -> tuple:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def _memory(tensor: Tensor) -> tuple[int, int]:
    storage = tensor.untyped_storage()
    return storage._cdata, storage.nbytes()


def _giving_memory(func: Callable) -> Callable:
    def give(of: Recording, tensor: Tensor, *args: Any) -> Any:
        inside = plain(alive(tensor))
        if not isinstance(inside, Abstract):
            with torch._C.DisableTorchFunction():
                note(of, inside, _memory, _memory(inside))
        return func(tensor, *args)

    return give


def _methods(names: tuple[str, ...]) -> list[Any]:
    return [getattr(Tensor, name) for name in names if hasattr(Tensor, name)]  # not every PyTorch has each


_GIVING_TENSORS = [one.__get__ for one in _methods(("grad", "_grad", "_base"))]
QUESTIONS: dict[Any, Callable] = {
    **{func: _asking(func) for func in (one.__get__ for one in _methods(_ATTRIBUTES))},
    **{func: _asking(func) for func in _methods(_METHODS)},
    **{func: _asking(func) for func in (getattr(torch, name) for name in _FUNCTIONS)},
    **{func: _giving_memory(func) for func in _methods(_MEMORY)},
}
"""Function -> what answers it in a trace, whose first argument is the trace, and notes the answer."""
