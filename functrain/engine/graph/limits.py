"""Limits: the values that kernels refuse, such as an index of no row, a label of no class, a divisor of zero.

They are what PyTorch's kernels refuse on the CPU (2.13), operation by operation, as its own errors say.
"""

from collections.abc import Callable, Iterable
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.fx import Node

from functrain.engine.graph.in_place import InPlace
from functrain.engine.tracing.operation_facts import without_write

aten = torch.ops.aten
_MASKS = (torch.bool, torch.uint8)
_OUT_OF_RANGE = "index out of range in self"


@attrs.frozen
class Limits:
    """What all elements of a value must be for an operation.

    Attributes:
        value: the value that is looked at.
        low: the smallest that passes; with `high` it is None where all but zero pass.
        high: the largest that passes.
        besides: another that passes, such as the label that a loss ignores; or None.
        words: what is said of others.
    """

    value: Node
    low: int | None
    high: int | None
    besides: int | None = None
    words: str = _OUT_OF_RANGE

    def holds(self, other: "Limits") -> bool:
        """Return whether whatever passes these limits passes others too."""
        if None in (self.low, self.high, other.low, other.high) or self.value is not other.value:
            return self == other
        inside = self.low >= other.low and self.high <= other.high  # pyright: ignore[reportOperatorIssue]
        return inside and self.besides in (None, other.besides)


def limits_of(node: Node) -> list[Limits]:
    """Return the limits that the kernel of a node sees to.

    >>> from functrain.engine.tracing.to_graph import trace
    >>> graph = trace(lambda x, k: [x[k]], [torch.ones(5, 3), torch.tensor([1])]).gm.graph
    >>> [(one.low, one.high) for node in graph.nodes for one in limits_of(node)]
    [(-5, 4)]
    """
    return [one for one in _limits(node) if isinstance(one.value, Node)]


def refuses_more(node: Node) -> bool:
    """Return whether the kernel of a node refuses what limits do not say, so that it has to run to say so."""
    if node.target is aten.searchsorted.Tensor:
        return node.kwargs.get("sorter") is not None
    operation, args = _call(node)
    if operation in _REFUSING:
        return _computes(node, args)
    return any(not isinstance(one.value, Node) for one in _limits(node))  # it lies in the memory that is written to


def _limits(node: Node) -> list[Limits]:
    operation, args = _call(node)
    find = _LIMITS.get(operation)
    if find is None or not _computes(node, args) or _is_true_division(operation, node):
        return []
    return list(find(*args))


def _is_true_division(operation: Any, node: Node) -> bool:
    kwargs = node.target.kwargs if isinstance(node.target, InPlace) else node.kwargs
    return operation is aten.div.Tensor_mode and kwargs.get("rounding_mode") is None


def _call(node: Node) -> tuple[Any, tuple]:
    """Return the operation and the arguments of a node; those of a write are those of what writes nothing."""
    target = node.target
    if not isinstance(target, InPlace):
        return target, node.args
    operation = without_write(target.operation)
    return operation, (target.seen(node.args, lambda n: n.meta["val"].meta) if operation in _OPERATIONS else ())


def _computes(node: Node, args: tuple) -> bool:
    made: Any = _value(args[0]) if isinstance(node.target, InPlace) else node.meta.get("val")
    return any(isinstance(one, Tensor) and one.numel() for one in (made if isinstance(made, (list, tuple)) else [made]))


def _value(x: Any) -> Any:
    return x.meta["val"] if isinstance(x, Node) else x


def _size(x: Any, axis: int) -> int:
    shape = _value(x).shape
    return shape[axis] if shape else 1


def _by_axes(x: Any, indices: list, *_: Any) -> Iterable[Limits]:
    axis = 0
    for index in indices:
        is_mask = index is not None and _value(index).dtype in _MASKS
        if index is not None and not is_mask:
            n = _size(x, axis)
            yield Limits(index, -n, n - 1)
        axis += _value(index).dim() if is_mask else 1


def _along(x: Any, axis: int, index: Any, *_: Any) -> Iterable[Limits]:
    yield Limits(index, 0, _size(x, axis) - 1)


def _along_or_back(x: Any, axis: int, index: Any, *_: Any) -> Iterable[Limits]:
    n = _size(x, axis)
    yield Limits(index, -n, n - 1)


def _of_all(x: Any, index: Any, *_: Any) -> Iterable[Limits]:
    n = _value(x).numel()
    yield Limits(index, -n, n - 1)


def _of_rows(weight: Any, indices: Any, *_: Any) -> Iterable[Limits]:
    yield Limits(indices, 0, _size(weight, 0) - 1)


def _labels(x: Any, labels: Any, _weight: Any, _reduction: int, ignored: int, *_: Any) -> Iterable[Limits]:
    yield Limits(labels, 0, _size(x, 0 if _value(x).dim() == 1 else 1) - 1, ignored)


def _labels_of_gradient(_cotangent: Any, *args: Any) -> Iterable[Limits]:
    return _labels(*args) if args[3] else ()  # that of losses which are not reduced writes anywhere (2.13)


def _probabilities(x: Any, *_: Any) -> Iterable[Limits]:
    yield Limits(x, 0, 1, words="all elements of input should be between 0 and 1")


def _divisors(x: Any, divisor: Any, *_: Any) -> Iterable[Limits]:
    if isinstance(divisor, (Node, Tensor)) and not any(map(_is_inexact, (_value(x), _value(divisor)))):
        yield Limits(divisor, None, None, words="ZeroDivisionError")  # pyright: ignore[reportArgumentType]


def _is_inexact(x: Any) -> bool:
    return x.is_floating_point() or x.is_complex() if isinstance(x, Tensor) else isinstance(x, (float, complex))


_ALONG = (
    aten.gather.default,
    aten.scatter.src,
    aten.scatter.value,
    aten.scatter.reduce,
    aten.scatter.value_reduce,
    aten.scatter_add.default,
    aten.scatter_reduce.two,
    aten.index_select.default,
    aten.index_add.default,
    aten.index_copy.default,
    aten.index_reduce.default,
)
_DIVISIONS = (
    aten.div.Tensor_mode,
    aten.floor_divide.default,
    aten.remainder.Tensor,
    aten.remainder.Scalar_Tensor,
    aten.fmod.Tensor,
)
_LIMITS: dict[Any, Callable[..., Iterable[Limits]]] = {
    aten.index.Tensor: _by_axes,
    aten.index_put.default: _by_axes,
    **dict.fromkeys(_ALONG, _along),
    aten.index_fill.int_Scalar: _along_or_back,
    aten.index_fill.int_Tensor: _along_or_back,
    aten.take.default: _of_all,
    aten.put.default: _of_all,
    aten.embedding.default: _of_rows,
    aten.nll_loss_forward.default: _labels,
    aten.nll_loss2d_forward.default: _labels,
    aten.nll_loss_backward.default: _labels_of_gradient,
    aten.nll_loss2d_backward.default: _labels_of_gradient,
    aten.binary_cross_entropy.default: _probabilities,
    **dict.fromkeys(_DIVISIONS, _divisors),
}
_REFUSING = frozenset(
    (
        aten._embedding_bag.default,
        aten._embedding_bag_forward_only.default,
        aten.multi_margin_loss.default,
        aten.multilabel_margin_loss_forward.default,
        aten.masked_scatter.default,
        aten.repeat_interleave.Tensor,
        aten.segment_reduce.default,
        aten.max_unpool2d.default,
        aten.max_unpool3d.default,
        aten.histc.default,
        aten.lu_unpack.default,
        aten.linalg_lu_solve.default,
        aten.linalg_ldl_solve.default,
        aten.linalg_eig.default,
        aten._linalg_eigh.default,
        aten._linalg_svd.default,
        aten.linalg_lstsq.default,
        aten.linalg_pinv.atol_rtol_tensor,
        aten.cholesky_inverse.default,
    )
)
_OPERATIONS = _REFUSING | _LIMITS.keys()
