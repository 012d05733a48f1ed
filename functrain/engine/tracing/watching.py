"""What no operation shows: functions of PyTorch that a trace must see before they reach the operations.

`tolist` and `numpy` read the memory of a tensor that is closed over without any operation, and instance norm at rest
writes what it read.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from functrain.dispatch_state import (
    forward_levels,
    innermost,
    is_differentiated_by_hand,
    outside_of_trace,
    unseen,
    vectorizing_levels,
)
from functrain.engine.tracing.own_functions import APPLIED, in_modes, within
from functrain.engine.tracing.recording import recording
from functrain.engine.tracing.refusals import Refused
from functrain.engine.tracing.rows.indexing import get_item, set_item


class Watching(TorchFunctionMode):
    """The mode in which a trace answers some functions itself.

    Args:
        value: tensor -> its values, where a trace may know them.
    """

    def __init__(self, value: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._value = value

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Answer a function, or let it run."""
        answer = _OWN.get(func)
        if answer is None:
            return func(*args, **(kwargs or {}))
        return answer(self._value, *args, **(kwargs or {}))


def watch_again() -> AbstractContextManager:
    """Return the mode of the running trace again, for a function that runs where PyTorch has switched it off.

    >>> with watch_again() as mode:  # there is no trace
    ...     mode is None
    True
    """
    current = recording()
    return nullcontext() if current is None else Watching(current.value)


def _reading(func: Callable) -> Callable:
    def read(value: Callable[[Tensor], Tensor], tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        with outside_of_trace(), unseen():
            return func(_values(value, tensor), *args, **kwargs)

    return read


def _autograd_grad(_, *args, **kwargs):
    """Return gradients that may be differentiated again, as outside of a trace: a trace itself runs without gradients.

    `torch.func.vjp` asks whether they are on. Some formulas, those of `solve` and `det` for one, then take what the
    forward pass kept for a constant, which is wrong under a forward derivative.
    """
    if kwargs.get("create_graph") is False and forward_levels():
        kwargs["create_graph"] = True
    return torch.autograd.grad(*args, **kwargs)


def _instance_norm(
    _, x, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, *more, **named
):
    """Normalise instances; at rest it is batch norm at rest, where PyTorch's writes the statistics that it read."""
    if use_input_stats:
        return F.instance_norm(x, running_mean, running_var, weight, bias, use_input_stats, *more, **named)
    return F.batch_norm(x, running_mean, running_var, weight, bias, False, *more, **named)


def _gaussian_nll_loss(_, input, target, var, full=False, eps=1e-6, reduction="mean"):
    """Return the loss with the check that no variance is negative made when it runs, where PyTorch's asks for it."""
    if not isinstance(var, Tensor):
        return F.gaussian_nll_loss(input, target, var, full, eps, reduction)
    torch.ops.aten._assert_async.msg(((var >= 0) | var.isnan()).all(), "var has negative entry/entries")
    if var.shape != input.shape:
        if var.shape == input.shape[:-1]:
            var = var.unsqueeze(-1)
        elif var.dim() != input.dim() or sum(y for x, y in zip(input.shape, var.shape, strict=True) if x != y) != 1:
            raise ValueError("var is of incorrect size")
    var = var.clone()
    with torch.no_grad():  # the gradient goes to the variance as if it were not clamped
        var.clamp_(min=eps)
    loss = 0.5 * (torch.log(var) + (input - target) ** 2 / var)
    return _REDUCED[reduction](loss + 0.5 * math.log(2 * math.pi) if full else loss)


def _one_hot(_, x, num_classes=-1):
    """Return the rows with the check of the classes made when it runs, which PyTorch's leaves out or asks for."""
    if num_classes <= 0 or x.dtype is not torch.int64:
        return F.one_hot(x, num_classes)
    with unseen():
        classes = innermost(x)
        is_class = ((classes >= 0) & (classes < num_classes)).all()
        torch.ops.aten._assert_async.msg(is_class, "index out of range in self: class values of one_hot")
    return (x.unsqueeze(-1) == torch.arange(num_classes, device=x.device)).to(torch.int64)


_REDUCED: dict[str, Callable] = {"none": lambda loss: loss, "mean": torch.mean, "sum": torch.sum}


def _ctc_loss(value, log_probs, targets, input_lengths, target_lengths, blank=0, reduction="mean", zero_infinity=False):
    """Return the loss with its mean taken here: PyTorch's writes the lengths into memory that a trace does not have."""
    lengths = [_as_list(value, n) for n in (input_lengths, target_lengths)]
    loss = F.ctc_loss(log_probs, targets, lengths[0], lengths[1], blank, "none", zero_infinity)
    if reduction == "mean":
        loss = loss / torch.tensor(lengths[1], device=loss.device).to(loss.dtype).clamp_min(1)
    return _REDUCED[reduction](loss)


def _as_list(value: Callable[[Tensor], Tensor], lengths: Any) -> Any:
    if not isinstance(lengths, Tensor):
        return lengths
    with outside_of_trace():
        return _values(value, lengths).tolist()


def _values(value: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """Return the values of a tensor as a transform of `torch.func` around the running code has it."""
    if vectorizing_levels([tensor]):  # it has others for each row
        raise Refused("value")
    with unseen():
        return value(innermost(tensor))


def _istft(_, *args, **kwargs):
    """Return the inverse transform, which asks whether a window leaves gaps; that is checked when it runs."""
    current = recording()
    if current is None:
        return torch.istft(*args, **kwargs)
    with current.assuming(False, "istft: window overlap add min: 1, the windows leave a gap"):
        return torch.istft(*args, **kwargs)


def _values_only(func: Callable, is_so: Callable[..., bool] = lambda *args, **kwargs: True) -> Callable:
    """Return a function that notes that no vectors are asked for, where eager execution would compute none."""

    def run(_, *args: Any, **kwargs: Any) -> Any:
        current = recording()
        if current is None or not is_so(*args, **kwargs) or any(map(_may_want_vectors, (*args, *kwargs.values()))):
            return func(*args, **kwargs)
        with current.values_only():
            return func(*args, **kwargs)

    return run


def _may_want_vectors(x: Any) -> bool:
    """Return whether a transform wraps a tensor, or somebody differentiates by it: then PyTorch keeps vectors."""
    if not isinstance(x, Tensor):
        return False
    with unseen():
        is_wrapped = innermost(x) is not x
    return is_wrapped or (x.requires_grad and torch.is_grad_enabled()) or is_differentiated_by_hand()


def _leaves_vectors_out(x: Any, some: bool = True, compute_uv: bool = True, **_: Any) -> bool:
    return not compute_uv


_OF_VALUES = (
    torch.linalg.svdvals,
    torch.linalg.eigvalsh,
    torch.linalg.cond,
    torch.linalg.matrix_rank,
    torch.linalg.matrix_norm,
    torch.linalg.norm,
    torch.norm,
    Tensor.norm,
    torch.nuclear_norm,
)
"""Functions that stand on singular values or eigenvalues alone, for some of their arguments."""


_OWN: dict[Any, Callable] = {
    **{func: _values_only(func) for func in _OF_VALUES},
    **{func: _values_only(func, _leaves_vectors_out) for func in (torch.svd, Tensor.svd)},
    **{func: _reading(func) for func in (Tensor.tolist, Tensor.numpy, Tensor.__array__)},
    Tensor.__getitem__: lambda _, x, index: get_item(x, index),
    Tensor.__setitem__: lambda _, x, index, value: set_item(x, index, value),
    APPLIED: lambda _, function, *args, **kwargs: APPLIED(in_modes(function, watch_again), *args, **kwargs),
    Tensor.register_hook: lambda _, x, hook: x.register_hook(within(hook, watch_again)),
    torch.autograd.grad: _autograd_grad,
    torch.istft: _istft,
    Tensor.istft: _istft,
    F.instance_norm: _instance_norm,
    F.gaussian_nll_loss: _gaussian_nll_loss,
    F.ctc_loss: _ctc_loss,
    F.one_hot: _one_hot,
}
"""Function -> what is traced in its place, which does the same; its first argument tells the values of a tensor."""
