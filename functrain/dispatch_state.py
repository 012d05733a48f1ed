"""What PyTorch is doing to the running code: tracing, transforming, running it. `dispatch_contexts` steps out of that.

The private interfaces that answer this live in these two alone; `tests/engine/test_private_interfaces.py` says when
one has moved.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator

import torch
import torch.autograd.forward_ad as forward_ad
from torch._C import DispatchKey, _dispatch_tls_is_dispatch_key_included  # pyright: ignore
from torch._C import _len_torch_dispatch_stack as dispatch_modes  # pyright: ignore
from torch._C import _len_torch_function_stack as function_modes  # pyright: ignore
from torch._C._functorch import (  # pyright: ignore
    CVmapInterpreterPtr,
    RandomnessType,
    TransformType,
    _add_batch_dim,
    _unwrap_batched,
    _unwrap_for_grad,
    _wrap_for_grad,
    get_interpreter_stack,
    get_unwrapped,
    is_batchedtensor,
    maybe_get_level,
    peek_interpreter_stack,
    unwrap_if_dead,
)
from torch._functorch import eager_transforms
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext

_NOTHING = contextlib.nullcontext()
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
    """Return whether the running code just runs: nothing is traced, transformed, differentiated by hand or compiled.

    >>> is_plain()
    True
    """
    # Each of these takes longer behind a function of its own, and this is asked several times at each step.
    return (
        peek_interpreter_stack() is None
        and dispatch_modes() == 0
        and not _dispatch_tls_is_dispatch_key_included(_PRE_DISPATCH)
        and not _is_compiled()
        and (forward_ad._current_level < 0 or not is_differentiated_by_hand())
    )


def default_device() -> torch.device | None:
    """Return the device that a context, or `torch.set_default_device`, gives to new tensors; None without one.

    >>> with torch.device("meta"):
    ...     default_device()
    device(type='meta')
    """
    modes = _get_current_function_mode_stack()
    return modes[-1].device if modes and isinstance(modes[-1], DeviceContext) else None  # pyright: ignore


def is_in_mode_of_functions() -> bool:
    """Return whether a mode of functions is on that may change what they do, other than where new tensors are put.

    >>> is_in_mode_of_functions()
    False
    """
    return function_modes() > 0 and not all(isinstance(m, DeviceContext) for m in _get_current_function_mode_stack())


def level(tensor: torch.Tensor) -> int:
    """Return the level of the `torch.func` transform that wraps a tensor, -1 for a plain tensor.

    >>> level(torch.ones(2))
    -1
    """
    return maybe_get_level(tensor)


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor inside the wrappers that `torch.func` transforms put around it.

    >>> torch.func.grad(lambda x: x * (level(plain(x)) == -1))(torch.tensor(2.0))
    tensor(1.)
    """
    while maybe_get_level(tensor) >= 0:
        tensor = get_unwrapped(tensor)
    return tensor


def layers(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield a tensor, what it wraps for the next transform of `torch.func`, and so on to the plain tensor inside.

    >>> torch.func.vmap(lambda x: x * len(list(layers(x))))(torch.ones(2))
    tensor([2., 2.])
    """
    tensor = alive(tensor)
    yield tensor
    while maybe_get_level(tensor) >= 0:
        tensor = alive(get_unwrapped(tensor))
        yield tensor


def alive(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor without the wrappers of transforms that are over, which are left where a gradient is pulled back.

    >>> x = torch.ones(2)
    >>> alive(x) is x
    True
    """
    while (inside := unwrap_if_dead(tensor)) is not tensor:
        tensor = inside
    return tensor


def innermost(tensor: torch.Tensor) -> torch.Tensor:
    """Return the plain tensor inside the wrappers of `torch.func`.

    >>> x = torch.ones(2)
    >>> innermost(x) is x
    True
    """
    for layer in layers(tensor):
        tensor = layer
    return tensor


def current_level() -> int:
    """Return the level of the innermost `torch.func` transform around the running code, 0 for none.

    >>> current_level()
    0
    """
    top = peek_interpreter_stack()
    return 0 if top is None else top.level()


def differentiating_levels(tensors: Iterable[torch.Tensor]) -> set[int]:
    """Return the levels of the transforms that differentiate by one of the tensors, 0 for autograd without transforms.

    >>> differentiating_levels([torch.ones(2, requires_grad=True)]), differentiating_levels([torch.ones(2)])
    ({0}, set())
    """
    forward = forward_levels()
    asked = {max(level(t), 0) for x in tensors for t in layers(x) if level(t) in forward or _asks(t)}
    return asked if torch.is_grad_enabled() else asked - ({current_level()} - forward)


def is_differentiated_besides(tensors: Iterable[torch.Tensor], own: int) -> bool:
    """Return whether more differentiates by what a backward pass works with than the transform that this pass is of.

    That one may be over, where its gradient is pulled back later; its number then says nothing.

    Args:
        tensors: what was kept, and the cotangents.
        own: the level of that transform.

    >>> is_differentiated_besides([torch.ones(2, requires_grad=True)], 0)
    False
    """
    tensors = list(tensors)
    is_over = any(alive(t) is not t for t in tensors)
    with torch.enable_grad():
        return bool(differentiating_levels(tensors) - (set() if is_over else {own}))


def forward_levels() -> set[int]:
    """Return the levels of the transforms around the running code that differentiate forward.

    >>> forward_levels()
    set()
    """
    return {one.level() for one in get_interpreter_stack() or () if one.key() == TransformType.Jvp}


def is_differentiated_by_hand() -> bool:
    """Return whether forward derivatives are taken without a transform of `torch.func`.

    Not every transform that is around the running code is in its stack: a trace within a trace steps out of them.

    >>> import functrain
    >>> with forward_ad.dual_level():
    ...     is_differentiated_by_hand()
    True
    >>> functrain.jvp(lambda x: x * is_differentiated_by_hand(), (torch.tensor(3.0),), (torch.tensor(1.0),))[1]
    tensor(0.)
    """
    return forward_ad._current_level >= 0 and not eager_transforms.JVP_NESTING


def forward_derivatives_on() -> contextlib.AbstractContextManager:
    """Return a context in which forward derivatives are taken, those of the transforms around the running code too.

    PyTorch switches off all of them in the `jvp` of an `autograd.Function`, so that a second one would be zero (2.14).
    What that computes with must then be `without_tangent`.

    >>> import functrain
    >>> with forward_derivatives_on():
    ...     float(functrain.jvp(torch.sin, (torch.tensor(0.0),), (torch.tensor(2.0),))[1])
    2.0
    """
    return forward_ad._set_fwd_grad_enabled(True)


def without_tangent(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor without its tangent for the innermost transform that differentiates forward.

    Those of other transforms around it are kept, which `detach` takes away. Where forward derivatives are taken by hand
    it is that of the open level.

    >>> import functrain
    >>> functrain.jvp(lambda x: x * without_tangent(x), (torch.tensor(3.0),), (torch.tensor(1.0),))[1]
    tensor(3.)
    """
    if is_differentiated_by_hand():
        return forward_ad.unpack_dual(tensor).primal
    return _without_tangent(tensor, max(forward_levels(), default=0))


def derivative_along(f: Callable, primals: tuple, tangents: tuple) -> list[torch.Tensor]:
    """Return the derivatives of a function that returns tensors, along tangents; also where one is taken by hand.

    >>> derivative_along(lambda x: (x**2,), (torch.tensor(3.0),), (torch.tensor(1.0),))
    [tensor(6.)]
    """
    if not is_differentiated_by_hand():
        return list(torch.func.jvp(f, primals, tangents)[1])  # pyright: ignore
    # PyTorch opens no second level.
    made = [forward_ad.unpack_dual(one) for one in f(*map(forward_ad.make_dual, primals, tangents))]
    return [torch.zeros_like(one.primal) if one.tangent is None else one.tangent for one in made]


def _without_tangent(tensor: torch.Tensor, of: int) -> torch.Tensor:
    here = level(tensor)
    if here > of and is_batchedtensor(tensor):
        value, axis = _unwrap_batched(tensor, here)
        return _add_batch_dim(_without_tangent(value, of), axis, here)  # pyright: ignore
    return _wrap_for_grad(_unwrap_for_grad(tensor, of), of) if here == of else tensor


def _asks(tensor: torch.Tensor) -> bool:
    return not is_batchedtensor(tensor) and tensor.requires_grad


def vectorizing_levels(tensors: Iterable[torch.Tensor]) -> set[int]:
    """Return the levels of the transforms that map over an axis of one of the tensors.

    >>> vectorizing_levels([torch.ones(2)])
    set()
    """
    return {level(t) for x in tensors for t in layers(x) if is_batchedtensor(t)}


def rows_drawn_apart(outside: int) -> list[torch.Tensor]:
    """Return the number of the row for each `vmap` of `randomness="different"` around the running code.

    Args:
        outside: the level up to which transforms are left out.

    >>> torch.func.vmap(lambda x: x + rows_drawn_apart(0)[0], randomness="different")(torch.zeros(3))
    tensor([0., 1., 2.])
    """
    if peek_interpreter_stack() is None:
        return []
    maps = [one for one in get_interpreter_stack() or () if one.key() == TransformType.Vmap and one.level() > outside]
    apart = [CVmapInterpreterPtr(one) for one in maps]
    return [
        _add_batch_dim(torch.arange(one.batchSize()), 0, one.level())
        for one in apart
        if one.randomness() == RandomnessType.Different
    ]


def is_batched_here(tensor: torch.Tensor) -> bool:
    """Return whether the innermost transform around the running code, a `vmap`, maps over an axis of a tensor.

    >>> y = torch.ones(2)
    >>> torch.func.vmap(lambda x: x + is_batched_here(x) + is_batched_here(y))(torch.zeros(2))
    tensor([1., 1.])
    """
    tensor = alive(tensor)
    return is_batchedtensor(tensor) and level(tensor) == current_level()


def keeps_for_gradients_otherwise() -> bool:
    """Return whether something else than autograd itself keeps tensors for a backward pass: a checkpoint, an offload.

    >>> keeps_for_gradients_otherwise()
    False
    """
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None  # pyright: ignore
