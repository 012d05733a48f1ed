"""Passes over a traced graph: what every backend gains from. They change no result, not by a bit."""

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from functrain.engine.abstract import storage_of
from functrain.engine.graphs import attribute, outputs, replace
from functrain.engine.tracer import draws

aten = torch.ops.aten

_SAME = frozenset((aten.detach.default, aten.alias.default, aten.lift_fresh.default))
_SAME_FORM = frozenset(
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
_FORM_ONLY = frozenset(
    (
        aten.ones_like.default,
        aten.zeros_like.default,
        aten.full_like.default,
        aten.new_zeros.default,
        aten.new_ones.default,
        aten.new_full.default,
    )
)
"""Operations whose result depends on the form of their argument, and not on its values."""
_VIEWS = (aten.view.default, aten._unsafe_view.default)
_SMALL = 1 << 16
"""Elements of a constant that is worth keeping instead of computing it at each call."""
GROUPED = 1 << 14
"""On the CPU, tensors of at most this many elements are grouped: for them a call costs more than the work."""


def simplify(gm: Any) -> Any:
    """Return the graph without the operations that do nothing, with equal ones done once, and constants computed.

    >>> from functrain.engine.trace import trace
    >>> traced = trace(lambda x: [x.t().t() + x.detach() * x], [torch.ones(2, 2)])
    >>> [n.name for n in simplify(traced.gm).graph.nodes if n.op == "call_function"]
    ['mul', 'add']
    """
    _remove_dead(gm)
    _drop_no_ops(gm)
    _fold_constants(gm)
    _merge_equal(gm)
    _remove_dead(gm)
    return gm


def fuse(gm: Any) -> Any:
    """Return the graph with `a + number * b` as one operation, and sums without the axis that a view drops.

    The first rounds once where the two operations round twice, as PyTorch's own optimizers do. Where b is a matrix
    product, such as a gradient that only goes into a parameter or its momentum, it is added as it is computed.
    """
    for node in list(gm.graph.nodes):
        if node.target in (aten.add.Tensor, aten.sub.Tensor):
            _fuse_scaled(node)
            _fuse_product(node)
        elif node.target in _VIEWS:
            _fuse_sum(node)
    _remove_dead(gm)
    return gm


def _fuse_scaled(node: Any) -> None:
    if node.kwargs:
        return
    choices = (1, 0) if node.target is aten.add.Tensor else (1,)
    for k in choices:
        product, other = node.args[k], node.args[1 - k]
        if not (_is_scaled(product) and isinstance(other, torch.fx.Node)):
            continue
        value = node.meta["val"]
        forms = [n.meta.get("val") for n in (product, product.args[0], other)]
        if value.is_floating_point() and all(isinstance(f, Tensor) and f.dtype == value.dtype for f in forms):
            node.args, node.kwargs = (other, product.args[0]), {"alpha": product.args[1]}
            node.graph.erase_node(product)
            return


def _fuse_product(node: Any) -> None:
    value = node.meta["val"]
    if not value.is_floating_point() or value.numel() <= GROUPED or not isinstance(node.args[1], torch.fx.Node):
        return
    (first, second), factor = node.args, node.kwargs.get("alpha", 1)
    factor = -factor if node.target is aten.sub.Tensor else factor
    for product, other, factors in ((second, first, {"alpha": factor}), (first, second, {"beta": factor})):
        alone = product.target is aten.mm.default and len(product.users) == 1
        if alone and same_form(other.meta.get("val"), value) and same_form(product.meta.get("val"), value):
            node.target, node.args, node.kwargs = aten.addmm.default, (other, *product.args), factors
            return


def _is_scaled(node: Any) -> bool:
    return (
        isinstance(node, torch.fx.Node)
        and node.target is aten.mul.Tensor
        and len(node.users) == 1
        and isinstance(node.args[1], (int, float))
        and not isinstance(node.args[1], bool)
    )


def _fuse_sum(node: Any) -> None:
    total = node.args[0]
    if total.target is not aten.sum.dim_IntList or total.args[2:] != (True,) or total.kwargs or len(total.users) > 1:
        return
    kept, axes = total.meta["val"], {a % total.meta["val"].dim() for a in total.args[1]}
    if [n for k, n in enumerate(kept.shape) if k not in axes] == list(node.meta["val"].shape):
        with node.graph.inserting_before(node):
            short = node.graph.call_function(aten.sum.dim_IntList, (total.args[0], total.args[1]))
        short.meta["val"] = node.meta["val"]
        replace(node, short)


def _remove_dead(gm: Any) -> None:
    gm.graph.eliminate_dead_code(lambda node: node.is_impure() or _returns_nothing(node.target))


def _returns_nothing(target: Any) -> bool:
    # An assertion, for one.
    return isinstance(target, torch._ops.OpOverload) and not target._schema.returns


def is_pure(node: Any) -> bool:
    """Return whether a node is a PyTorch operation that gives the same result each time and changes nothing."""
    target = node.target
    return (
        node.op == "call_function"
        and isinstance(target, torch._ops.OpOverload)
        and not target._schema.is_mutable
        and not draws(target, node.args, node.kwargs)
    )


def same_form(a: Any, b: Any) -> bool:
    """Return whether two tensors agree in shape, strides, dtype, device and what their memory is to be read as."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return False
    if (a.is_conj(), a.is_neg()) != (b.is_conj(), b.is_neg()):
        return False
    return (a.shape, a.stride(), a.dtype, a.device) == (b.shape, b.stride(), b.dtype, b.device)


def _drop_no_ops(gm: Any) -> None:
    for node in list(gm.graph.nodes):
        if node.op != "call_function" or not node.args or not isinstance(node.args[0], torch.fx.Node):
            continue
        node.args = (_base_of_view(node), *node.args[1:])
        source = node.args[0]
        if node.target in _SAME or _does_nothing(node, source):
            replace(node, source)
        elif node.target is aten.t.default and source.target is aten.t.default:
            replace(node, source.args[0])


def _does_nothing(node: Any, source: Any) -> bool:
    if node.target not in _SAME_FORM or not same_form(node.meta.get("val"), source.meta.get("val")):
        return False
    if node.target in (aten.t.default, aten.transpose.int, aten.permute.default):
        # A square matrix that is not contiguous either way: only axes of one element may change places unseen.
        return node.meta["val"].dim() < 2 or node.meta["val"].numel() <= 1
    return True


def _base_of_view(node: Any) -> Any:
    source = node.args[0]
    if node.target in _VIEWS and source.op == "call_function" and source.target in _VIEWS:
        base = source.args[0]
        if base.meta["val"].is_contiguous() and storage_of(base.meta.get("val")) == storage_of(node.meta.get("val")):
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
    known: dict[Any, Tensor] = {}
    for node in gm.graph.nodes:
        value = node.meta.get("val")
        if not is_pure(node) or not isinstance(value, Tensor) or value.numel() > _SMALL:
            continue
        inputs = node.all_input_nodes
        literal = node.target in (aten.lift_fresh_copy.default, aten.lift_fresh.default)
        if literal and inputs[0].op == "get_attr":
            known[node] = attribute(gm, inputs[0].target)
        elif node.target in _FORM_ONLY and node.meta["val"].device.type != "meta":
            known[node] = _filled(node)
        elif all(n in known for n in inputs) and torch.Tag.inplace_view not in node.target.tags:
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), known.__getitem__)
            with torch.no_grad():
                known[node] = node.target(*args, **kwargs)
    # A result must be new memory at each call. What only feeds other constants vanishes as dead code.
    memory = {storage_of(n.meta.get("val")) for n in results}
    known = {n: value for n, value in known.items() if storage_of(n.meta["val"]) not in memory}
    kept = [n for n in known if any(user not in known for user in n.users)]
    for k, node in enumerate(kept):
        name = f"_folded{k}"
        gm.register_buffer(name, known[node], persistent=False)
        with gm.graph.inserting_before(node):
            constant = gm.graph.get_attr(name)
        constant.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(constant)
    _remove_dead(gm)


def _filled(node: Any) -> Tensor:
    value = node.meta["val"]
    name = node.target._schema.name
    fill = 0 if "zeros" in name else 1 if "ones" in name else node.args[-1]
    made = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)
    return made.fill_(fill)
