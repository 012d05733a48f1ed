"""Backward passes of a user's `torch.autograd.Function` in a module: the rules of the application go on there.

They run when the module has returned. What they draw comes from its key, and what they write to is seen. PyTorch makes
a context each time that such a function is applied, in which the application is noted; its backward pass asks for it.
"""

from typing import Any

from torch.autograd.function import BackwardCFunction
from torch.overrides import _get_current_function_mode_stack

from functrain.dispatch_state import function_modes, is_transformed
from functrain.nn.interop.rules.running import Running

_LIBRARIES = ("torch.", "functrain.")
_NOTED = "application_of_functrain"


def running() -> Running | None:
    """Return the application in which the running code is, or None.

    >>> running()
    """
    if not function_modes():
        return None
    modes = _get_current_function_mode_stack()
    return next((mode for mode in reversed(modes) if isinstance(mode, Running)), None)


def _note(ctx: Any, *_: Any) -> None:
    """Note the application in the context of a function that is applied; a transform asks the mode itself."""
    application = running()
    if application is None or is_transformed() or ctx._forward_cls.__module__.startswith(_LIBRARIES):
        return
    setattr(ctx, _NOTED, application)


def _install() -> None:
    pull: Any = BackwardCFunction.apply

    def pull_again(ctx: Any, *cotangents: Any) -> Any:
        application = vars(ctx).get(_NOTED)
        if application is None:
            return pull(ctx, *cotangents)
        with application.again():
            return pull(ctx, *cotangents)

    BackwardCFunction.__init__ = _note  # pyright: ignore
    BackwardCFunction.apply = pull_again  # pyright: ignore


_install()
