"""What PyTorch is doing to the running code (tracing, transforming, running it), and how to step out of that.

The private interfaces that answer this live here alone; `tests/engine/test_private_interfaces.py` says when one has
moved.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch._C import DispatchKey, _dispatch_tls_is_dispatch_key_included  # pyright: ignore
from torch._C import _len_torch_dispatch_stack as dispatch_modes  # pyright: ignore
from torch._C._functorch import (  # pyright: ignore
    TransformType,
    get_interpreter_stack,
    maybe_get_level,
    peek_interpreter_stack,
)

_is_autocast = torch._C._is_any_autocast_enabled  # pyright: ignore
_PRE_DISPATCH = DispatchKey.PreDispatch
# Not `is_compiling`, which is true in a trace of functrain's own.
_is_compiled = torch.compiler.is_dynamo_compiling


def is_transformed() -> bool:
    """Return whether a `torch.func` transform (grad, vmap, jvp) is around the running code.

    >>> is_transformed()
    False
    """
    return peek_interpreter_stack() is not None


def is_differentiated_only() -> bool:
    """Return whether no `torch.func` transform but `grad` is around the running code.

    >>> is_differentiated_only(), torch.func.vmap(lambda x: x + is_differentiated_only())(torch.zeros(2))
    (True, tensor([0., 0.]))
    """
    return all(one.key() == TransformType.Grad for one in get_interpreter_stack() or ())


def is_traced() -> bool:
    """Return whether a dispatch mode sees the running code: functrain's tracer, `make_fx`, or another.

    >>> is_traced()
    False
    """
    # The second: with `pre_dispatch` the mode of `make_fx` is none of the dispatch modes.
    return dispatch_modes() > 0 or _dispatch_tls_is_dispatch_key_included(_PRE_DISPATCH)


def is_plain() -> bool:
    """Return whether the running code just runs: nothing is traced, transformed or compiled.

    >>> is_plain()
    True
    """
    # Each of these takes longer behind a function of its own, and this is asked several times at each step.
    return (
        peek_interpreter_stack() is None
        and dispatch_modes() == 0
        and not _dispatch_tls_is_dispatch_key_included(_PRE_DISPATCH)
        and not _is_compiled()
    )


def level(tensor: torch.Tensor) -> int:
    """Return the level of the `torch.func` transform that wraps a tensor, -1 for a plain tensor.

    >>> level(torch.ones(2))
    -1
    """
    return maybe_get_level(tensor)


_AUTOCAST = torch._C.DispatchKeySet(DispatchKey.AutocastCPU).add(DispatchKey.AutocastCUDA).add(DispatchKey.AutocastXPU)
_NOTHING = contextlib.nullcontext()
below_autograd = torch._C._AutoDispatchBelowAutograd  # pyright: ignore


def gradients_on() -> contextlib.AbstractContextManager:
    """Return a context in which the grad mode is on, which some kernels ask for.

    >>> with torch.no_grad(), gradients_on():
    ...     torch.is_grad_enabled()
    True
    """
    return _NOTHING if torch.is_grad_enabled() else torch.enable_grad()


def below_autocast() -> contextlib.AbstractContextManager:
    """Return a context in which autocast converts nothing: what was recorded has been converted already.

    >>> x = torch.ones(2, 2)
    >>> with torch.autocast("cpu", dtype=torch.bfloat16), below_autocast():
    ...     (x @ x).dtype
    torch.float32
    """
    return torch._C._ExcludeDispatchKeyGuard(_AUTOCAST) if _is_autocast() else _NOTHING  # pyright: ignore


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
