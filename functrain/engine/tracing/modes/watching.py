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
from torch.overrides import _get_current_function_mode_stack

from functrain.dispatch_contexts import outside_of_trace, unseen
from functrain.dispatch_state import (
    dispatch_modes,
    innermost,
    is_differentiated_by_hand,
    keeps_for_gradients_otherwise,
    vectorizing_levels,
)
from functrain.engine.tracing.abstract_tensor import Abstract
from functrain.engine.tracing.asking import MOST_ELEMENTS
from functrain.engine.tracing.modes import readers
from functrain.engine.tracing.modes.listed import MADE_OF_LISTS, index_with_values, making
from functrain.engine.tracing.modes.questions import QUESTIONS, note
from functrain.engine.tracing.modes.staying_modes import StayingMode, answers_itself
from functrain.engine.tracing.own_functions import APPLIED, in_modes, within
from functrain.engine.tracing.recording import Recording, recording
from functrain.engine.tracing.refusals import Refused
from functrain.engine.tracing.rows.by_masks import BY_MASKS
from functrain.engine.tracing.rows.indexing import get_item, set_item


class Watching(StayingMode):
    """The mode in which a trace answers some functions itself.

    Attributes:
        of: the trace, which may know the values of a tensor.
    """

    def __init__(self, of: Recording) -> None:
        super().__init__()
        self.of = of

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Answer a function, or let it run."""
        answer = _OWN.get(func)
        if answer is None or answers_itself(types):
            return self.pass_on(func, types, args, kwargs)
        return answer(self.of, *args, **(kwargs or {}))

    def pass_on(self, func, types, args, kwargs):
        """Run a function, and be asked where code of the user's runs in it that no mode sees."""
        if not (_is_of_users(func) or dispatch_modes() > 1 or keeps_for_gradients_otherwise()):
            return super().pass_on(func, types, args, kwargs)
        with readers.asking(_answer):
            return super().pass_on(func, types, args, kwargs)

    def again(self) -> AbstractContextManager:
        """Return the mode of the trace that is running by then, which may be one inside this one."""
        return watch_again()


def _answer(_: str, method: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Answer a method of a tensor in a trace, wherever it is called."""
    current = recording()
    if current is None or isinstance(tensor, Abstract) or torch._C._is_torch_function_all_disabled():  # pyright: ignore
        return method(tensor, *args, **kwargs)
    return _OWN[method](current, tensor, *args, **kwargs)


def watching_storages() -> AbstractContextManager:
    """Return a context in which a trace refuses what reads a storage, or writes to it.

    >>> with watching_storages():  # there is no trace
    ...     torch.ones(1).untyped_storage().tolist()
    [0, 0, 128, 63]
    """
    return readers.asking(_refuse_storage, readers.OF_STORAGES)


def _refuse_storage(name: str, method: Any, this: Any, *args: Any, **kwargs: Any) -> Any:
    if recording() is None or torch._C._is_torch_function_all_disabled():  # pyright: ignore
        return method(this, *args, **kwargs)
    if name == "__reduce_ex__":
        raise Refused("pickle")
    raise Refused("effect", "the storage of a tensor") if name in readers.WRITING else Refused("value")


def _is_of_users(func: Any) -> bool:
    """Return whether a function is an operator of the user's, whose kernel for gradients may be written in Python."""
    if not isinstance(func, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):
        return False
    return not str(func).startswith(("aten.", "prim"))


def watch_again() -> AbstractContextManager:
    """Return the mode of the running trace again, for a function that runs where PyTorch has switched it off.

    >>> with watch_again() as mode:  # there is no trace
    ...     mode is None
    True
    """
    current, modes = recording(), _get_current_function_mode_stack()
    is_on = any(isinstance(mode, Watching) and mode.of is current for mode in modes)
    return nullcontext() if current is None or is_on else Watching(current)


def _reading(func: Callable) -> Callable:
    def read(of: Recording, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        with outside_of_trace(), unseen():
            values = _values(of.value, tensor)
            return of.lend(innermost(tensor), values, func(values, *args, **kwargs))

    return read


def _repr(of: Recording, tensor: Tensor, **options: Any) -> str:
    """Return the text of a tensor, whose values join the signature where they are few: nobody computes with others."""
    with unseen():
        is_plain = not isinstance(innermost(tensor), Abstract) and tensor.numel() <= MOST_ELEMENTS
    if not is_plain or vectorizing_levels([tensor]):
        return Tensor.__repr__(tensor, **options)
    with outside_of_trace(), unseen():
        inside = innermost(tensor)
        _values(of.value, tensor)
        note(of, inside, _history, _history(inside))
        return Tensor.__repr__(inside, **options)


def _history(tensor: Tensor) -> tuple[bool, Any]:
    return tensor.requires_grad, tensor.grad_fn  # which the text tells


def _deepcopy(_: Recording, tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    """Return a copy that the trace makes, where PyTorch's reads the memory."""
    if id(tensor) not in memo:
        memo[id(tensor)] = tensor.detach().clone().requires_grad_(tensor.requires_grad)
    return memo[id(tensor)]


def _later(func: Callable) -> Callable:
    return lambda _, *args, **kwargs: func(*args, **kwargs)


def _refusing(kind: str, what: str = "") -> Callable:
    def refuse(*_: Any, **__: Any) -> Any:
        raise Refused(kind, what)

    return refuse


def _changing(name: str, func: Callable) -> Callable:
    """Return what sets an attribute of a tensor, if not of one that is closed over: no operation shows it."""

    def change(_: Recording, tensor: Tensor, value: Any = True) -> Any:
        with unseen():
            is_own = isinstance(innermost(tensor), Abstract) or innermost(tensor) is not tensor  # a transform's wrapper
            before = getattr(tensor, name)
        if not is_own and before is not value:
            raise Refused("effect", f"the {name} of a tensor closed over")
        return func(tensor, value)

    return change


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


def _ctc_loss(of, log_probs, targets, input_lengths, target_lengths, blank=0, reduction="mean", zero_infinity=False):
    """Return the loss with its mean taken here: PyTorch's writes the lengths into memory that a trace does not have."""
    lengths = [_as_list(of, n) for n in (input_lengths, target_lengths)]
    loss = F.ctc_loss(log_probs, targets, lengths[0], lengths[1], blank, "none", zero_infinity)
    if reduction == "mean":
        loss = loss / torch.tensor(lengths[1], device=loss.device).to(loss.dtype).clamp_min(1)
    return _REDUCED[reduction](loss)


def _as_list(of: Recording, lengths: Any) -> Any:
    if not isinstance(lengths, Tensor):
        return lengths
    with outside_of_trace():
        return _values(of.value, lengths).tolist()


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


_ADDRESSES = tuple(name for name in ("data_ptr", "const_data_ptr", "__dlpack__") if hasattr(Tensor, name))
_ATTRIBUTES = ("data", "grad", "requires_grad")
_OWN: dict[Any, Callable] = {
    **QUESTIONS,
    **{func: making(func) for func in MADE_OF_LISTS},
    **{func: _values_only(func) for func in _OF_VALUES},
    **{func: _values_only(func, _leaves_vectors_out) for func in (torch.svd, Tensor.svd)},
    **{func: _reading(func) for func in (Tensor.tolist, Tensor.numpy, Tensor.__array__)},
    **{func: _later(answer) for func, answer in BY_MASKS.items()},
    **{getattr(Tensor, name): _refusing("elements", name) for name in ("apply_", "map_", "map2_")},
    **{getattr(Tensor, name): _refusing("value") for name in _ADDRESSES},
    **{getattr(Tensor, name).__set__: _changing(name, getattr(Tensor, name).__set__) for name in _ATTRIBUTES},
    Tensor.requires_grad_: _changing("requires_grad", Tensor.requires_grad_),
    Tensor.__repr__: _repr,
    Tensor.__deepcopy__: _deepcopy,
    Tensor.__getitem__: lambda of, x, index: get_item(x, index_with_values(of, index)),
    Tensor.__setitem__: lambda of, x, index, value: set_item(x, index_with_values(of, index), value),
    APPLIED: lambda _, function, *args, **kwargs: APPLIED(in_modes(function, watch_again), *args, **kwargs),
    Tensor.register_hook: lambda _, x, hook: x.register_hook(within(hook, watch_again)),
    torch.istft: _istft,
    Tensor.istft: _istft,
    F.instance_norm: _instance_norm,
    F.gaussian_nll_loss: _gaussian_nll_loss,
    F.ctc_loss: _ctc_loss,
    F.one_hot: _one_hot,
}
"""Function -> what is traced in its place, which does the same; its first argument is the trace."""
