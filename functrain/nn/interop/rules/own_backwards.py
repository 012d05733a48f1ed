"""Backward passes of a user's `torch.autograd.Function` in a module: the rules of the application go on there.

They run when the module has returned. What they draw comes from its key, and what they write to is seen.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch.autograd import Function
from torch.overrides import _get_current_function_mode_stack

from functrain.dispatch_state import is_transformed
from functrain.nn.interop.rules.running import Running

_LIBRARIES = ("torch.", "functrain.")
_MADE = "following_of_functrain"
"""Under this name a class holds what is made of it, to be freed with it."""


def running() -> Running | None:
    """Return the application in which the running code is, or None.

    >>> running()
    """
    modes = _get_current_function_mode_stack()
    return next((mode for mode in reversed(modes) if isinstance(mode, Running)), None)


def following(function: type[Function]) -> type[Function]:
    """Return a function like a user's whose backward pass runs as the application goes on that it was applied in.

    >>> class Twice(Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         return 2 * x
    ...     @staticmethod
    ...     def backward(ctx, cotangent):
    ...         return 2 * cotangent
    >>> following(Twice).__name__, following(following(Twice)) is following(Twice)
    ('Twice', True)
    """
    if function.__module__.startswith(_LIBRARIES) or getattr(function, "follows_application", False):
        return function
    if _MADE not in vars(function):
        setattr(function, _MADE, _make(function))
    return vars(function)[_MADE]


def _make(function: type[Function]) -> type[Function]:
    has_setup = function.setup_context is not Function.setup_context
    noting = "setup_context" if has_setup else "forward"

    def note(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        ctx.application_of_functrain = running()
        return getattr(function, noting)(ctx, *args, **kwargs)

    methods: dict[str, Any] = {noting: staticmethod(functools.wraps(getattr(function, noting))(note))}
    for name in ("backward", "vjp"):
        if getattr(function, name) is not getattr(Function, name):
            methods[name] = staticmethod(_again(function, name))
    about = {"follows_application": True, "__module__": function.__module__}
    return type(function)(function.__name__, (function,), {**methods, **about})  # pyright: ignore[reportCallIssue]


def _again(function: type[Function], name: str) -> Callable:
    @functools.wraps(getattr(function, name))
    def run(ctx: Any, *cotangents: Any) -> Any:
        application = getattr(ctx, "application_of_functrain", None)
        again: AbstractContextManager = nullcontext() if application is None else application.again()
        with again:
            return getattr(function, name)(ctx, *cotangents)

    return run


def _install() -> None:
    """Let `apply` ask whether an application is running; transforms ask its mode themselves."""
    apply: Any = vars(Function)["apply"]

    def ask(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if running() is not None and not is_transformed():
            cls = following(cls)
        return apply.__get__(None, cls)(*args, **kwargs)

    Function.apply = classmethod(ask)  # pyright: ignore


_install()
