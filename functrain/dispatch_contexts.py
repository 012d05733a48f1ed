"""How to step out of what PyTorch is doing to the running code: below autograd and autocast, outside of a transform.

The private interfaces for this live here and in `dispatch_state`, which answers where the code is.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch._C import DispatchKey
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

from functrain.dispatch_state import is_transformed

_NOTHING = contextlib.nullcontext()
_is_autocast = torch._C._is_any_autocast_enabled  # pyright: ignore


def outside_of_transforms() -> contextlib.AbstractContextManager:
    """Return a context in which no `torch.func` transform is around the running code.

    >>> def f(x):
    ...     with outside_of_transforms():
    ...         return x if is_transformed() else None
    >>> torch.func.vmap(lambda x: x + (f(x) is None))(torch.zeros(2))
    tensor([1., 1.])
    """
    return temporarily_clear_interpreter_stack() if is_transformed() else _NOTHING


@contextlib.contextmanager
def unseen() -> Iterator[None]:
    """Look at tensors, and make some, so that no `torch.func` transform and no mode of functions sees it.

    >>> with unseen():
    ...     torch.ones(2).shape
    torch.Size([2])
    """
    with outside_of_transforms(), torch._C.DisableTorchFunction():
        yield


_AUTOCAST = torch._C.DispatchKeySet(DispatchKey.AutocastCPU).add(DispatchKey.AutocastCUDA).add(DispatchKey.AutocastXPU)
below_autograd = torch._C._AutoDispatchBelowAutograd  # pyright: ignore


class _GradientsOn:
    """What `torch.enable_grad` does where gradients are off, for a tracer that does it at each operation."""

    def __enter__(self) -> None:
        torch._C._set_grad_enabled(True)

    def __exit__(self, *_: object) -> None:
        torch._C._set_grad_enabled(False)


_GRADIENTS_ON = _GradientsOn()


def gradients_on() -> contextlib.AbstractContextManager:
    """Return a context in which the grad mode is on, which some kernels ask for.

    >>> with torch.no_grad(), gradients_on():
    ...     torch.is_grad_enabled()
    True
    """
    return _NOTHING if torch.is_grad_enabled() else _GRADIENTS_ON


def below_autocast() -> contextlib.AbstractContextManager:
    """Return a context in which autocast converts nothing: what was recorded has been converted already.

    >>> x = torch.ones(2, 2)
    >>> with torch.autocast("cpu", dtype=torch.bfloat16), below_autocast():
    ...     (x @ x).dtype
    torch.float32
    """
    return torch._C._ExcludeDispatchKeyGuard(_AUTOCAST) if _is_autocast() else _NOTHING  # pyright: ignore


def autocast_state() -> Callable[[], contextlib.AbstractContextManager]:
    """Return a function that gives a context in which autocast is as it is now.

    >>> with torch.autocast("cpu", dtype=torch.bfloat16):
    ...     as_now = autocast_state()
    >>> x = torch.ones(2, 2)
    >>> with as_now():
    ...     (x @ x).dtype
    torch.bfloat16
    """
    before = {kind: _autocast_of(kind) for kind in ("cpu", "cuda")}

    @contextlib.contextmanager
    def again() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for kind, (enabled, dtype) in before.items():
                if _autocast_of(kind) != (enabled, dtype):
                    stack.enter_context(torch.autocast(kind, dtype, enabled))
            yield

    return again


def _autocast_of(kind: str) -> tuple[bool, torch.dtype]:
    return torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)


@contextlib.contextmanager
def as_recorded() -> Iterator[None]:
    """Call operations as a trace records them: below autograd and autocast, and with the grad mode on.

    >>> with as_recorded():
    ...     (torch.ones(2, requires_grad=True) * 2).requires_grad
    False
    """
    with below_autograd(), gradients_on(), below_autocast():
        yield


@contextlib.contextmanager
def outside_of_trace() -> Iterator[None]:
    """Compute with tensors that have memory, from within the handler of a dispatch mode, as code outside of it does.

    There PyTorch leaves out what makes a lazily conjugated or negated tensor another (2.13): x * x.conj() is x * x.

    >>> with outside_of_trace():
    ...     torch.tensor([1j]) * torch.tensor([1j]).conj()
    tensor([1.+0.j])
    """
    include, exclude = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()  # pyright: ignore
    for key in (DispatchKey.Conjugate, DispatchKey.Negative, DispatchKey.ZeroTensor):
        exclude = exclude.remove(key)
    with torch._C._ForceDispatchKeyGuard(include, exclude), torch._C._DisableTorchDispatch():  # pyright: ignore
        yield
