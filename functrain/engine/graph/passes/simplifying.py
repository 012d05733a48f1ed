"""Simplifying: fewer operations for the same results, to the bit. Every backend gains from it."""

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from functrain.dispatch_contexts import as_recorded
from functrain.engine.graph.aliasing import Aliasing, laid_out_by_storage
from functrain.engine.graph.checks import Checks, holds_checks, is_check, refuses
from functrain.engine.graph.queries import attribute, outputs, replace
from functrain.engine.graph.results import keep_apart, shared_by_results
from functrain.engine.tracing.meta.geometry import same_layout
from functrain.engine.tracing.operation_facts import draws, facts

aten = torch.ops.aten

_SAME = frozenset((aten.detach.default, aten.alias.default, aten.lift_fresh.default))
_SAME_LAYOUT = frozenset(
    (
        aten.view.default,
        aten._unsafe_view.default,
        aten.reshape.default,
        aten.expand.default,
        aten._to_copy.default,
        aten.clone.default,
        aten.t.default,
        aten.transpose.int,
        aten.permute.default,
        aten.lift_fresh_copy.default,
    )
)
_COPIES = (aten.clone.default, aten._to_copy.default, aten.lift_fresh_copy.default)
_SHAPE_ONLY = frozenset(
    (
        aten.ones_like.default,
        aten.zeros_like.default,
        aten.full_like.default,
        aten.new_zeros.default,
        aten.new_ones.default,
        aten.new_full.default,
    )
)
"""Operations whose result depends on the shape and layout of their argument, and not on its values."""
VIEWS = (aten.view.default, aten._unsafe_view.default)
_SMALL = 1 << 16
"""Elements of a constant that is worth keeping instead of computing it at each call."""
GROUPED = 1 << 14
"""On the CPU, tensors of at most this many elements are grouped: for them a call costs more than the work."""


def simplify(gm: Any) -> Any:
    """Return the graph without the operations that do nothing, with equal ones done once, and constants computed.

    >>> from functrain.engine.tracing.to_graph import trace
    >>> traced = trace(lambda x: [x.t().t() + x.detach() * x], [torch.ones(2, 2)])
    >>> [n.name for n in simplify(traced.gm).graph.nodes if n.op == "call_function"]
    ['mul', 'add']
    """
    shared = shared_by_results(gm.graph)
    remove_dead(gm, but_checks=True)
    _drop_no_ops(gm)
    _fold_constants(gm)
    _merge_equal(gm)
    remove_dead(gm)
    keep_apart(gm.graph, shared)
    return gm


def remove_dead(gm: Any, but_checks: bool = False) -> None:
    """Remove the operations whose results nobody reads, but for assertions and loops that check values.

    Args:
        gm: the module of the graph.
        but_checks: whether operations that refuse some values are left as they are. Otherwise their checks stay.

    >>> from functrain.engine.tracing.to_graph import trace
    >>> gm = trace(lambda x: [(x * 2, x + 1)[1]], [torch.ones(2)]).gm
    >>> remove_dead(gm)
    >>> [n.name for n in gm.graph.nodes if n.op == "call_function"]
    ['add']
    """
    checks: Checks | None = None
    for node in reversed(gm.graph.nodes):
        if node.users or node.op not in ("call_function", "get_attr"):
            continue
        if is_check(node.target) or holds_checks(node.target):
            continue
        if refuses(node):
            if but_checks:
                continue
            checks = checks or Checks(gm.graph)
            checks.keep(node)
        if not node.users:
            gm.graph.erase_node(node)


def is_pure(node: Any) -> bool:
    """Return whether a node is a PyTorch operation that gives the same result each time and changes nothing."""
    target = node.target
    return (
        node.op == "call_function"
        and isinstance(target, torch._ops.OpOverload)
        and not target._schema.is_mutable
        and not draws(target, node.args, node.kwargs)
    )


def _drop_no_ops(gm: Any) -> None:
    aliasing = Aliasing(gm.graph)
    by_storage = laid_out_by_storage(gm.graph, aliasing)
    kept = {n for n in gm.graph.nodes if n.target in _COPIES and aliasing.memory(n) in by_storage}
    for node in list(gm.graph.nodes):
        if node.op != "call_function" or not node.args or not isinstance(node.args[0], torch.fx.Node):
            continue
        node.args = (_base_of_view(node), *node.args[1:])
        source = node.args[0]
        if node not in kept and (node.target in _SAME or _does_nothing(node, source)):
            replace(node, source)
        elif node.target is aten.t.default and source.target is aten.t.default:
            replace(node, source.args[0])


def _does_nothing(node: Any, source: Any) -> bool:
    if node.target not in _SAME_LAYOUT or not same_layout(node.meta.get("val"), source.meta.get("val")):
        return False
    if node.target in (aten.t.default, aten.transpose.int, aten.permute.default):
        # A square matrix that is not contiguous either way: only axes of one element may change places unseen.
        return node.meta["val"].dim() < 2 or node.meta["val"].numel() <= 1
    return True


def _base_of_view(node: Any) -> Any:
    source = node.args[0]
    if node.target in VIEWS and source.op == "call_function" and source.target in VIEWS:
        base = source.args[0]
        if base.meta["val"].is_contiguous():
            return base
    return source


def _merge_equal(gm: Any) -> None:
    seen: dict[Hashable, Any] = {}
    results = set(outputs(gm.graph))
    for node in list(gm.graph.nodes):
        if node.op == "get_attr":
            key = ("get_attr", id(attribute(gm, node.target)))
        elif is_pure(node) or (node.op == "call_function" and node.target is not None and _is_getitem(node)):
            key = (node.target, _hashable(node.args), _hashable(node.kwargs))
        else:
            continue
        first = seen.setdefault(key, node)
        # Two results that are equal stay two tensors: the memory of each can be donated later.
        if first is not node and not (node in results and first in results):
            if node in results:
                results.add(first)
            replace(node, first)


def _is_getitem(node: Any) -> bool:
    return getattr(node.target, "__name__", "") == "getitem"


def _hashable(value: Any) -> Hashable:
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, *(_hashable(v) for v in value))
    if isinstance(value, dict):
        return tuple((k, _hashable(v)) for k, v in sorted(value.items()))
    # 1, 1.0 and True are equal in Python, and not in an operation; neither are 0.0 and -0.0.
    return (type(value), repr(value)) if isinstance(value, (int, float, complex)) else value


def _fold_constants(gm: Any) -> None:
    """Compute what depends on no argument once, now. Tensors that are closed over are arguments in this sense."""
    results = set(outputs(gm.graph))
    constants: dict[Any, Tensor] = {}
    for node in gm.graph.nodes:
        value = node.meta.get("val")
        if not is_pure(node) or not isinstance(value, Tensor) or value.numel() > _SMALL or _is_uninitialised(node):
            continue
        inputs = node.all_input_nodes
        literal = node.target in (aten.lift_fresh_copy.default, aten.lift_fresh.default)
        if literal and inputs[0].op == "get_attr":
            constants[node] = attribute(gm, inputs[0].target)
        elif node.target in _SHAPE_ONLY and node.meta["val"].device.type != "meta":
            constants[node] = _fill(node)
        elif all(n in constants for n in inputs) and torch.Tag.inplace_view not in node.target.tags:
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), constants.__getitem__)
            with as_recorded():
                constants[node] = node.target(*args, **kwargs)
    if not constants:
        return
    # A result must be new memory at each call. What only feeds other constants vanishes as dead code.
    aliasing = Aliasing(gm.graph)
    memories = {aliasing.memory(n) for n in results}
    constants = {n: value for n, value in constants.items() if aliasing.memory(n) not in memories}
    kept = [n for n in constants if any(user not in constants for user in n.users)]
    for k, node in enumerate(kept):
        name = f"_folded{k}"
        gm.register_buffer(name, constants[node], persistent=False)
        with gm.graph.inserting_before(node):
            constant = gm.graph.get_attr(name)
        constant.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(constant)
    remove_dead(gm, but_checks=True)


def _is_uninitialised(node: Any) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and facts(node.target).is_uninitialised


def _fill(node: Any) -> Tensor:
    value = node.meta["val"]
    name = node.target._schema.name
    fill = 0 if "zeros" in name else 1 if "ones" in name else node.args[-1]
    made = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)
    return made.fill_(fill)
