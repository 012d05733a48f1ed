"""Functions of `torch.autograd.Function` under transforms: their methods run in the modes of the code around them.

PyTorch takes a mode of functions away while it runs what the mode has seen, and it runs the whole of such a function
so: forward, the rule of `vmap`, `jvp`. A backward pass runs wherever somebody asks for it, often in no mode.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any

from torch._functorch.autograd_function import custom_function_call
from torch.autograd import Function

APPLIED = custom_function_call
"""What a mode of functions sees where a transform is around a function of one's own."""

_METHODS = ("forward", "setup_context", "backward", "vjp", "jvp", "vmap")


def in_modes(function: type[Function], again: Callable[[], AbstractContextManager]) -> type[Function]:
    """Return a function that runs the methods of another in a context.

    Args:
        function: what its user calls `apply` of.
        again: returns the context, anew for each method that runs.

    >>> from contextlib import nullcontext
    >>> class Twice(Function):
    ...     @staticmethod
    ...     def forward(x):
    ...         return 2 * x
    >>> in_modes(Twice, nullcontext).forward(3)
    6
    """
    own = [name for name in _METHODS if getattr(function, name, None) is not getattr(Function, name, None)]
    methods = {name: staticmethod(within(getattr(function, name), again)) for name in own}
    return type(function)(function.__name__, (function,), methods)  # pyright: ignore[reportCallIssue]


def within(method: Callable, again: Callable[[], AbstractContextManager]) -> Callable:
    """Return a function that runs in a context, made anew each time.

    >>> from contextlib import nullcontext
    >>> within(abs, nullcontext)(-3)
    3
    """

    @wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        with again():
            return method(*args, **kwargs)

    return run
