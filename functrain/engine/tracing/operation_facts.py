"""What the tracer has to know of an operation, from its schema, its tags and the table of what schemas hide."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import attrs
import torch
from torch._C import _current_autograd_node  # pyright: ignore

from functrain.engine.tracing.meta.geometry import tensors_in
from functrain.engine.tracing.undeclared import ON_OTHER_DEVICES, QUIET, UNDECLARED_WRITES

aten = torch.ops.aten
_INDEXING = (aten.index.Tensor, aten._unsafe_index.Tensor)
_KNOWN_SHAPE = (*_INDEXING, aten._ctc_loss.default, aten.linalg_lstsq.default, aten.repeat_interleave.Tensor)
"""Operations whose shapes depend on values with some arguments only."""


@attrs.frozen
class Facts:
    """What of an operation the tracer has to know.

    Attributes:
        writes: the positions of the arguments that it changes.
        draws: whether it draws from the global generator.
        refused: "value" or "shape" where its result, or the shape of it, depends on values; else "".
        is_composite: whether it is made of other operations, which are recorded instead.
        takes_device: whether it has an argument `device`.
        returns_nothing: whether it is done for its effect alone, as an assertion.
        changes_shape: whether it gives a tensor another shape in place, as `unsqueeze_`.
        is_uninitialised: whether its result has whatever values are in the memory.
    """

    writes: tuple[int, ...]
    draws: bool
    refused: str
    is_composite: bool
    takes_device: bool
    returns_nothing: bool
    changes_shape: bool
    is_uninitialised: bool


@cache
def facts(func: Any) -> Facts:
    """Return what the schema and the tags of an operation say.

    >>> facts(torch.ops.aten.add_.Tensor).writes, facts(torch.ops.aten.nonzero.default).refused
    ((0,), 'shape')
    """
    arguments, tags, has_kernel = func._schema.arguments, func.tags, torch._C._dispatch_has_kernel_for_dispatch_key
    by_value = torch.Tag.data_dependent_output in tags
    by_shape = torch.Tag.dynamic_output_shape in tags and func not in _KNOWN_SHAPE
    hidden = UNDECLARED_WRITES.get(str(func)) or ON_OTHER_DEVICES.get(str(func), ())
    return Facts(
        tuple(k for k, a in enumerate(arguments) if _writes(a) or a.name in hidden),
        torch.Tag.nondeterministic_seeded in tags,
        "value" if by_value else "shape" if by_shape else "",
        has_kernel(func.name(), "CompositeImplicitAutograd") and not has_kernel(func.name(), "CPU"),
        any(a.name == "device" for a in arguments),
        not func._schema.returns,
        torch.Tag.inplace_view in tags,
        func._opname in ("empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"),
    )


def _writes(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def writes(func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[int, ...]:
    """Return the positions of the arguments that a call of an operation writes to.

    >>> writes(torch.ops.aten.add_.Tensor, (torch.ones(1), torch.ones(1)), {})
    (0,)
    """
    positions = facts(func).writes
    if not positions or is_quiet(func, args, kwargs):
        return ()
    return tuple(k for k in positions if argument(func, k, args, kwargs) is not None)


def written_tensors(func: Any, args: Any, kwargs: dict[str, Any]) -> Iterator[Any]:
    """Yield the tensors that a call of an operation writes to."""
    for k in writes(func, args, kwargs):
        yield from tensors_in(argument(func, k, args, kwargs))


def is_quiet(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    """Return whether a call neither writes nor draws although the operation can, as batch norm at rest.

    >>> is_quiet(torch.ops.aten.native_dropout.default, (torch.ones(1), 0.5, False), {})
    True
    """
    if func.name().partition(".")[0] not in QUIET:
        return False
    name, value = QUIET[func.name().partition(".")[0]]
    names = [a.name for a in func._schema.arguments]
    return argument(func, names.index(name), args, kwargs) == value


def argument(func: Any, k: int, args: Any, kwargs: dict[str, Any]) -> Any:
    """Return what a call passes for the argument of a position of the schema.

    >>> argument(torch.ops.aten.add.Tensor, 2, (1, 2), {"alpha": 3})
    3
    """
    of = func._schema.arguments[k]
    return args[k] if k < len(args) else kwargs.get(of.name, of.default_value)


def draws(func: Any, args: Any, kwargs: Any) -> bool:
    """Return whether a call of an operation draws from PyTorch's global generator.

    >>> draws(torch.ops.aten.bernoulli.default, (torch.ones(2),), {})
    True
    """
    return facts(func).draws and not is_quiet(func, args, kwargs)


def has_open_shape(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    """Return whether the shape of a result depends on values with these arguments: a mask among indices, for one."""
    if func in _INDEXING:
        return any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1])
    if func is aten.linalg_lstsq.default:  # these have residuals by the rank
        return kwargs.get("driver") in ("gelss", "gelsd")
    return func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None


@cache
def without_write(func: Any) -> Any:
    """Return the operation that returns what another writes into its first argument, or None.

    >>> without_write(torch.ops.aten.transpose_.default), without_write(torch.ops.aten.polygamma_.default)
    (<OpOverload(op='aten.transpose', overload='int')>, None)
    """
    if not func._opname.endswith("_") or not hasattr(aten, func._opname[:-1]):
        return None
    packet = getattr(aten, func._opname[:-1])
    wanted = [(a.name, str(a.type)) for a in func._schema.arguments]
    for name in packet.overloads():
        other = getattr(packet, name)
        if [(a.name, str(a.type)) for a in other._schema.arguments] == wanted:
            return other
    return None


_CHOOSING = ("Maximum", "Minimum", "Clamp", "Fmax", "Fmin")


def fills_in_place(tensor: Any) -> bool:
    """Return whether PyTorch fills a tensor in place where no mode is on: what is left of a gradient of maximum (2.14).

    It says so by the layout, which is then that of the tensor and not a row-major one.
    """
    node = _current_autograd_node()
    if node is None or isinstance(node, torch.autograd.function.BackwardCFunction):
        return False
    made = tensor.node
    return made.target is aten.where.self and not made.users and node.name().startswith(_CHOOSING)
