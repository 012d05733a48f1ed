"""Modes of functions that are on wherever code of the user's runs.

PyTorch takes a mode away while it runs what the mode has seen, and some of that runs code of the user's: a gradient
runs hooks and the backward passes of functions, and a class may answer for itself by `__torch_function__`.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.overrides import (
    TorchFunctionMode,
    _get_current_function_mode_stack,
    _get_overloaded_args,
    handle_torch_function,
)

from functrain import tree
from functrain.dispatch_state import forward_levels
from functrain.engine.tracing.abstract_tensor import Abstract
from functrain.engine.tracing.recording import is_recorded


class StayingMode(TorchFunctionMode):
    """A mode of functions that is on in the user's code, too, that a function runs."""

    def again(self) -> AbstractContextManager:
        """Return a context in which the mode is on, which may be off."""
        return nullcontext() if self in _get_current_function_mode_stack() else self

    def as_now(self) -> Callable[[], AbstractContextManager] | None:
        """Return what gives a context in which the mode goes on as it is now, None where it does not outlast its block.

        A function that runs again in a backward pass does there what it did the first time.
        """
        return None

    def pass_on(self, func: Any, types: Any, args: tuple, kwargs: dict[str, Any] | None) -> Any:
        """Run a function that the mode has seen."""
        if answers_itself(types):
            return self.ask_classes(func, types, args, kwargs or {})
        if func in CALLING:
            return self.stay(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def ask_classes(self, func: Any, types: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Return what the classes of the arguments make of a function, with the mode on."""
        return _run(_as_classes_say, (func, types, args, kwargs), {}, (self.again,))

    def stay(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Run one of the functions of `CALLING`, with the mode on."""
        if func is _run:
            body, passed, named, modes = args
            return _run(body, passed, named, (self.again, *modes))
        return _run(_BODIES[func], args, kwargs, (self.again,))


def as_now() -> Callable[[], AbstractContextManager]:
    """Return what gives a context in which the modes go on as they are now that outlast their blocks.

    >>> with as_now()():  # there is none
    ...     pass
    """
    modes = (one.as_now() for one in _get_current_function_mode_stack() if isinstance(one, StayingMode))
    lasting = [mode for mode in modes if mode is not None]

    @contextmanager
    def again() -> Iterator[None]:
        with ExitStack() as stack:
            for mode in lasting:
                stack.enter_context(mode())
            yield

    return again if lasting else nullcontext


def answers_itself(types: Iterable[type]) -> bool:
    """Return whether one of the classes that a mode sees says itself what functions do to it.

    >>> answers_itself([Tensor, torch.nn.Parameter])
    False
    """
    return not _PLAIN.issuperset(types) and any(map(_has_own_answer, types))


_PLAIN = {Tensor, torch.nn.Parameter, UninitializedParameter, UninitializedBuffer, Abstract}


def _has_own_answer(kind: Any) -> bool:
    answer = kind.__torch_function__
    is_of_all = getattr(answer, "__func__", None) is Tensor.__torch_function__.__func__  # pyright: ignore
    return not is_of_all and answer is not torch._C._disabled_torch_function_impl  # pyright: ignore


def _run(body: Callable, args: tuple, kwargs: dict[str, Any], modes: tuple[Callable, ...]) -> Any:
    """Run a function in the modes that have seen it; those of the code around that have not are asked first."""
    if torch._C._len_torch_function_stack():  # pyright: ignore
        return handle_torch_function(_run, (), body, args, kwargs, modes)
    with ExitStack() as stack:
        for again in modes:
            stack.enter_context(again())
        return body(*args, **kwargs)


def _as_classes_say(func: Any, types: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Return what the classes of the arguments make of a function, as PyTorch asks them."""
    for one in _get_overloaded_args(tree.leaves((args, kwargs))):
        made = one.__torch_function__(func, types, args, kwargs)
        if made is not NotImplemented:
            return made
    names = sorted(kind.__name__ for kind in types)
    raise TypeError(f"no __torch_function__ of {', '.join(names)} implements {getattr(func, '__name__', func)}")


def _without_asking(func: Any) -> Any:
    """Return a function of PyTorch that asks no mode and no class before it begins."""
    namespace = {**func.__globals__, **dict.fromkeys(_QUESTIONS, lambda *_: False)}
    made = FunctionType(func.__code__, namespace, func.__name__, func.__defaults__, func.__closure__)
    made.__kwdefaults__ = func.__kwdefaults__
    return made


_QUESTIONS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
_grad = _without_asking(torch.autograd.grad)


def _grad_again(*args: Any, **kwargs: Any) -> Any:
    """Return gradients; in a trace they may be differentiated again, as outside: a trace itself runs without gradients.

    `torch.func.vjp` asks whether they are on. Some formulas, those of `solve` and `det` for one, then take what the
    forward pass kept for a constant, which is wrong under a forward derivative.
    """
    if kwargs.get("create_graph") is False and is_recorded() and forward_levels():
        kwargs["create_graph"] = True
    return _grad(*args, **kwargs)


_CALLING = (torch.autograd.backward, Tensor.backward, Tensor.__format__, F.triplet_margin_with_distance_loss)
_BODIES: dict[Any, Callable] = {torch.autograd.grad: _grad_again, **{f: _without_asking(f) for f in _CALLING}}
"""Function that runs code of the user's -> what does the same and asks no mode."""

CALLING = frozenset((_run, *_BODIES))
"""The functions that run code of the user's, and what runs them, of which each mode is asked."""
