"""The generator as operations of its own, of which a trace records one for a draw, a split or a fold.

By its parts, a call of the generator is 80 operations, which take 20 ms and more to trace and each cost a call. As one
operation, a CPU runs it as quickly in a graph as at once. A compiler, which fuses the parts, gets them back by
`engine.graph.passes.expanding`, and so do devices other than the CPU.

Inside `torch.func.vmap` and transforms other than `grad`, and under `torch.compile`, the parts themselves are recorded.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functrain.dispatch_state import is_differentiated_only
from functrain.operators import KERNELS, PURE
from functrain.random import drawing, words

_LIBRARY = torch.library.Library("functrain", "DEF")


def _define(schema: str, pure: Callable, quick: Callable, layout: Callable, many: Callable | None = None) -> Any:
    """Define an operation and return it.

    Args:
        schema: its name and arguments.
        pure: what computes it anywhere, by pure tensor operations.
        quick: what computes it on a CPU.
        layout: what gives its result without values.
        many: what makes arguments with an axis to map over into arguments whose first axis it is.
    """
    many = many or _many

    def kernel(key: Tensor, *rest: Any) -> Tensor:
        return quick(key, *rest) if key.device.type == "cpu" else pure(key, *rest)

    def mapped(info: Any, in_dims: tuple, *args: Any) -> tuple[Tensor, int]:
        return op(*many(args, in_dims)), 0

    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    name = schema[: schema.index("(")]
    _LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"functrain::{name}", layout, lib=_LIBRARY)
    torch.library.register_vmap(f"functrain::{name}", mapped, lib=_LIBRARY)
    packet, _, overload = name.partition(".")
    op = getattr(getattr(torch.ops.functrain, packet), overload or "default")
    KERNELS[op], PURE[op] = kernel, pure
    return op


def _many(args: tuple, in_dims: tuple) -> tuple:
    """Return arguments of which some have an axis to map over as arguments whose first axis it is."""
    (key, number, *rest), (dim, number_dim, *_) = args, in_dims
    size = key.shape[dim] if dim is not None else number.shape[number_dim]
    key = key.expand(size, *key.shape) if dim is None else key.movedim(dim, 0)
    if isinstance(number, Tensor):
        number = number.expand(size, *number.shape) if number_dim is None else number.movedim(number_dim, 0)
        rank = max(key.dim() - 1, number.dim())  # further axes meet at their ends
        key, number = _of_rank(key, rank + 1), _of_rank(number, rank)
    return key, number, *rest


def _of_rank(tensor: Tensor, rank: int) -> Tensor:
    return tensor.reshape(tensor.shape[0], *[1] * (rank - tensor.dim()), *tensor.shape[1:])


def _many_limits(args: tuple, in_dims: tuple) -> tuple:
    """Return the same for limits that broadcast to the shape of a draw of each key, and not to the keys."""
    (key, limit, shape), (dim, limit_dim, *_) = args, in_dims
    size = key.shape[dim] if dim is not None else limit.shape[limit_dim]
    key = key.expand(size, *key.shape) if dim is None else key.movedim(dim, 0)
    if limit_dim is not None:
        limit = _of_rank(limit.movedim(limit_dim, 0), key.dim() - 1 + len(shape))
    return key, limit, shape


def _layout_of_draw(
    key: Tensor, shape: list[int], kind: str, _numbers: list, dtype: torch.dtype, _lane: int = 0
) -> Tensor:
    return key.new_empty((*key.shape[:-1], *shape), dtype=drawing.result_dtype(kind, dtype))


def _layout_of_truth(key: Tensor, shape: list[int], _limit: int) -> Tensor:
    return key.new_empty((*key.shape[:-1], *shape), dtype=torch.bool)


def _layout_of_truth_by_limits(key: Tensor, _limit: Tensor, shape: list[int]) -> Tensor:
    return key.new_empty((*key.shape[:-1], *shape), dtype=torch.bool)


def _layout_of_children(key: Tensor, n: int) -> Tensor:
    return key.new_empty((*key.shape[:-1], n, 2))


def _layout_of_child(key: Tensor, number: int | Tensor, first: int, third: int) -> Tensor:
    shape = words.common_shape(key, number) if isinstance(number, Tensor) else key.shape[:-1]
    return key.new_empty((*shape, 2))


_DRAW = _define(
    "philox_draw(Tensor key, int[] shape, str kind, Scalar[] numbers, ScalarType dtype, int lane=0) -> Tensor",
    drawing.draw,
    drawing.draw_quickly,
    _layout_of_draw,
)
_BERNOULLI = _define(
    "philox_bernoulli(Tensor key, int[] shape, int limit) -> Tensor",
    drawing.bernoulli,
    drawing.bernoulli_quickly,
    _layout_of_truth,
)
_BERNOULLI_OF = _define(
    "philox_bernoulli.tensor(Tensor key, Tensor limit, int[] shape) -> Tensor",
    drawing.bernoulli_of,
    drawing.bernoulli_of_quickly,
    _layout_of_truth_by_limits,
    _many_limits,
)
_SPLIT = _define(
    "philox_split(Tensor key, int n) -> Tensor", words.children, words.children_quickly, _layout_of_children
)
_FOLD_ARGUMENTS = "number, int first, int third) -> Tensor"
_FOLD_NUMBER = _define(
    f"philox_fold(Tensor key, int {_FOLD_ARGUMENTS}", words.child, words.child_quickly, _layout_of_child
)
_FOLD_TENSOR = _define(
    f"philox_fold.tensor(Tensor key, Tensor {_FOLD_ARGUMENTS}", words.child, words.child_quickly, _layout_of_child
)


def _is_recorded() -> bool:
    return not torch.compiler.is_dynamo_compiling() and is_differentiated_only()


def draw(
    key: Tensor, shape: tuple[int, ...], kind: str, numbers: list[Any], dtype: torch.dtype, lane: int = 0
) -> Tensor:
    """Return a draw of a kind, in a trace as one operation.

    >>> from torch.fx.experimental.proxy_tensor import make_fx
    >>> graph = make_fx(lambda key: draw(key, (3,), "words", [], torch.int64))(torch.tensor([0, 0])).graph
    >>> [node.name for node in graph.nodes if node.op == "call_function"]
    ['philox_draw']
    """
    return (_DRAW if _is_recorded() else drawing.draw)(key, shape, kind, numbers, dtype, lane)


def bernoulli(key: Tensor, shape: tuple[int, ...], limit: int | Tensor) -> Tensor:
    """Return truth values of probability limit / 2**48, in a trace as one operation.

    >>> bernoulli(torch.tensor([0, 0]), (4,), 2**47)
    tensor([False,  True, False,  True])
    """
    recorded = _is_recorded()
    if isinstance(limit, Tensor):
        return (_BERNOULLI_OF if recorded else drawing.bernoulli_of)(key, limit, shape)
    return (_BERNOULLI if recorded else drawing.bernoulli)(key, shape, limit)


def children(key: Tensor, n: int) -> Tensor:
    """Return the keys of a split, in a trace as one operation.

    >>> children(torch.tensor([0, 0]), 3).shape
    torch.Size([3, 2])
    """
    return _SPLIT(key, n) if _is_recorded() else words.children(key, n)


def child(key: Tensor, number: int | Tensor, first: int, third: int) -> Tensor:
    """Return the key of a key and a number, in a trace as one operation.

    >>> child(torch.tensor([0, 0]), 5, 0, words.FOLD).shape
    torch.Size([2])
    """
    if not _is_recorded():
        return words.child(key, number, first, third)
    if not isinstance(number, Tensor):
        return _FOLD_NUMBER(key, number, first, third)
    words.common_shape(key, number)
    return _FOLD_TENSOR(key, number.to(key.device, torch.int64), first, third)
