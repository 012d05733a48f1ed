"""Rematerialisation: less memory in a differentiated function, for computing parts of it twice."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial, wraps
from typing import Any

import attrs
import torch
from torch import Tensor
from torch._C._functorch import (  # pyright: ignore
    get_unwrapped,
)
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils.checkpoint import checkpoint

from functrain import tree
from functrain.dispatch_state import (
    alive,
    current_level,
    derivative_along,
    forward_derivatives_on,
    is_differentiated_besides,
    is_differentiated_by_hand,
    is_transformed,
    level,
    without_tangent,
)
from functrain.engine.tracing.modes.staying_modes import as_now
from functrain.engine.tracing.modes.watching import watch_again
from functrain.engine.tracing.own_functions import within
from functrain.engine.tracing.recording import is_recorded
from functrain.engine.transforms.closing import Filling, all_passed_on, closures
from functrain.engine.transforms.closures_refused import ClosuresRefused
from functrain.engine.transforms.mapped_rows import current_rows, rows_again

_HERE = object()


def remat(f: Callable) -> Callable:
    """Return `f`, of which gradients keep the arguments alone: what it computes is computed again when they are needed.

    Put it around the repeated parts of a deep model, such as a block of a transformer. A chain of n parts then holds
    n arguments and the intermediate values of one part, where it would hold those of all n; it costs a second forward
    pass, about a third more time. It works in `value_and_grad`, plain, in `jit` and in torch.func's transforms. In
    `jit` the second computation waits for the gradient that asks for it, so that neither common-subexpression
    elimination nor a scheduler can put it back to the first.

    Args:
        f: a pure function of trees, its randomness from keys. Under torch.func it is traced, to find what it
            closes over.

    Returns:
        A function of the same arguments and results.

    Raises:
        NotTraceable: under torch.func, `f` looks at the values of a tensor.

    The method is that of Chen et al., Training Deep Nets with Sublinear Memory Cost (2016).

    >>> block = remat(lambda w, x: torch.tanh(x @ w))
    >>> torch.func.grad(lambda w: block(w, torch.ones(1, 2)).sum())(torch.zeros(2, 2))
    tensor([[1., 1.],
            [1., 1.]])
    """
    if hasattr(f, "recomputes"):
        return f

    @wraps(f)
    def rematerialised(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = all_passed_on(args), all_passed_on(kwargs)
        if is_transformed() or (is_recorded() and torch.is_grad_enabled()):
            return _transform(f, args, kwargs, discovers=get_proxy_mode() is None)
        # Under forward derivatives taken by hand it runs as it is, in more memory: PyTorch's checkpoint has none (2.11)
        if get_proxy_mode() is None and torch.is_grad_enabled() and not is_differentiated_by_hand():
            return _checkpoint(partial(f, **kwargs) if kwargs else f, args)
        return f(*args, **kwargs)

    vars(rematerialised)["recomputes"] = f  # a scan of it keeps carries alone
    return rematerialised


def _checkpoint(f: Callable, args: tuple) -> Any:
    try:
        return checkpoint(f, *args, use_reentrant=False, preserve_rng_state=False)
    except RuntimeError as error:
        if "saved tensor hooks" not in str(error):
            raise
    return f(*args)  # gradients inside refuse what recomputes: the same values, in more memory


def _transform(f: Callable, args: tuple, kwargs: dict[str, Any], discovers: bool) -> Any:
    f = _under_autocast_of_now(f)
    leaves, spec = tree.flatten((args, kwargs))
    where = [k for k, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    seen: list[Any] = []

    def called(tensors: Sequence[Tensor]) -> list[Tensor]:
        filled = list(leaves)
        for k, tensor in zip(where, tensors, strict=True):
            filled[k] = tensor
        args, kwargs = tree.unflatten(spec, filled)
        results, structure = tree.flatten(f(*args, **kwargs))
        seen[:] = [structure, [_HERE if isinstance(r, Tensor) else r for r in results]]
        return [r for r in results if isinstance(r, Tensor)]

    tensors = [leaves[k] for k in where]
    count, rows, again = len(tensors), current_rows(), as_now()
    closed = closures(within(called, again), tensors, _name(f)) if discovers else None

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        with (
            watch_again(),
            again(),
            rows_again(rows),
            ClosuresRefused(f"{_name(f)} under remat", tensors)
            if closed is None
            else Filling(closed, tensors[count:]) as mode,
        ):
            results = called(tensors[:count])
        return tuple(mode.swap(r) for r in results)

    tensors += [] if closed is None else closed.tensors
    kept = [_is_parameter(t) for t in tensors]
    outputs = iter(_Remat.apply(_Call(flat, kept), *tensors))
    structure, rest = seen
    return tree.unflatten(structure, [next(outputs) if r is _HERE else r for r in rest])


def _under_autocast_of_now(f: Callable) -> Callable:
    """Return the function that runs under the autocast of this moment, in a backward pass outside of it too."""
    devices = [device for device in ("cpu", "cuda") if torch.is_autocast_enabled(device)]
    dtypes = {device: torch.get_autocast_dtype(device) for device in devices}
    if not devices:
        return f

    @wraps(f)
    def under(*args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            for device, dtype in dtypes.items():
                stack.enter_context(torch.autocast(device, dtype, cache_enabled=False))
            return f(*args, **kwargs)

    return under


def _is_parameter(tensor: Tensor) -> bool:
    """Return whether a tensor is what some transform around differentiates by, not computed from it."""
    while not (tensor.requires_grad and tensor.is_leaf):
        if level(tensor) < 0:
            return False
        tensor = get_unwrapped(tensor)
    return True


def _differentiable(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _name(f: Callable) -> str:
    return getattr(f, "__name__", type(f).__name__)


@attrs.frozen(eq=False)
class _Call:
    """A call, as one leaf: PyTorch's rule of vmap takes those of a list for tensors that have no tangent (2.14).

    Attributes:
        flat: the function of tensors.
        kept: which of them are parameters.
    """

    flat: Callable
    kept: list[bool]


class _Remat(torch.autograd.Function):
    """(call, *tensors) -> the function's results, saving the tensors alone."""

    generate_vmap_rule = True

    @staticmethod
    def forward(call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        # What it is handed and returns as it is may not be saved, a view of it may.
        return tuple(t.view_as(t) if any(t is x for x in tensors) else t for t in call.flat(*tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        ctx.call, *tensors = inputs
        ctx.level = current_level()
        ctx.results = [_differentiable(t) for t in output]
        ctx.mark_non_differentiable(*[t for t in output if not _differentiable(t)])
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple:
        incoming = [c for c, wanted in zip(cotangents, ctx.results, strict=True) if wanted]
        saved = ctx.saved_tensors  # which a checkpoint around this lets be read once
        is_differentiated = is_differentiated_besides([*saved, *incoming], ctx.level)
        incoming, tensors = [alive(c) for c in incoming], [alive(t) for t in saved]
        traced = is_recorded() or get_proxy_mode() is not None
        tensors = _after(incoming, tensors, ctx.call.kept) if traced else tensors
        by, partial = _of_floats(ctx.call.flat, tensors)
        # torch.func records its backward passes too, and the record would hold all that is computed again.
        with torch.set_grad_enabled(is_differentiated):
            _, vjp = torch.func.vjp(partial, *[tensors[k] for k in by])  # pyright: ignore
            gradients = dict(zip(by, vjp(tuple(incoming)), strict=True))
        return None, *(gradients.get(k) for k in range(len(tensors)))

    @staticmethod
    def jvp(ctx: Any, _call: None, *tangents: Tensor | None) -> tuple:  # pyright: ignore
        with forward_derivatives_on():
            tensors = [without_tangent(t) for t in ctx.saved_tensors]
            by, partial = _of_floats(ctx.call.flat, tensors)
            moving = [torch.zeros_like(tensors[k]) if tangents[k] is None else tangents[k] for k in by]
            out = iter(derivative_along(partial, tuple(tensors[k] for k in by), tuple(moving)))
        return tuple(next(out) if wanted else None for wanted in ctx.results)


def _of_floats(flat: Callable, tensors: Any) -> tuple[list[int], Callable]:
    """Return the positions of the floating-point tensors, and the function from them to its floating-point results."""
    by = [k for k, t in enumerate(tensors) if _differentiable(t)]

    def partial(*floats: Tensor) -> tuple[Tensor, ...]:
        filled = list(tensors)
        for k, t in zip(by, floats, strict=True):
            filled[k] = t
        return tuple(r for r in flat(*filled) if _differentiable(r))

    return by, partial


def _after(events: list[Tensor], tensors: Any, kept: list[bool]) -> list[Tensor]:
    """Return the tensors unchanged, but so that no compiler can know it, and only once the events are computed.

    Without this the second computation would be found equal to the first, whose results would then be kept after all.
    Parameters are kept as they are, to save the copies: whatever else depends on the others.
    """
    firsts = [e.reshape(-1)[0] for e in events if e.numel()]
    if not firsts:
        return list(tensors)
    condition = firsts[0] != firsts[0]
    for first in firsts[1:]:
        condition = condition | (first != first)
    if all(kept):
        kept = [False] * len(kept)
    return [t if keep else torch.where(condition, t, t) for t, keep in zip(tensors, kept, strict=True)]
