"""Rules for elementwise operations: promotion, broadcasting, and the order of axes in memory."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from functrain.engine.tracing.meta.geometry import is_dense

Inferred = Any
"""A meta tensor, a tuple of them, or None: ask PyTorch."""


def new_meta(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return a new contiguous meta tensor.

    >>> new_meta((2, 3), torch.int64).stride()
    (3, 1)
    """
    return torch.empty(shape, dtype=dtype, device="meta")


def adding(table: dict[str, Callable[..., Inferred]]) -> Callable[..., Callable[[Callable], Callable]]:
    """Return a decorator that takes names, and enters a rule in a table under each.

    >>> table = {}
    >>> _ = adding(table)("relu", "neg")(lambda x: x)
    >>> list(table)
    ['relu', 'neg']
    """

    def rule(*names: str) -> Callable[[Callable], Callable]:
        def add(f: Callable) -> Callable:
            table.update(dict.fromkeys(names, f))
            return f

        return add

    return rule


def elementwise(
    result: Callable[[torch.dtype], torch.dtype | None], promotes: bool = True
) -> Callable[..., Tensor | None]:
    """Return the rule of an operation on each element, see `operation_rules`.

    Args:
        result: from the common dtype of the operands to that of the result, or None where it is not sure.
        promotes: whether numbers among the arguments are operands, which take part in the common dtype.

    >>> x = torch.empty(2, 1, device="meta")
    >>> elementwise(lambda dtype: dtype)(x, x.t()).shape
    torch.Size([2, 2])
    """

    def rule(*args: Any, **kwargs: Any) -> Tensor | None:
        operands = [a for a in args if isinstance(a, Tensor) or (promotes and a is not None)]
        tensors = [a for a in operands if isinstance(a, Tensor)]
        common = _common_dtype(operands, tensors) if kwargs.keys() <= {"alpha", "approximate", "value"} else None
        dtype = None if common is None else result(common)
        # What has to be converted first is made contiguous by that if it is not dense.
        sure = all(t.dtype is common or is_dense(t) for t in tensors)
        return broadcast(tensors, dtype) if dtype is not None and sure else None

    return rule


def _common_dtype(operands: list[Any], tensors: list[Tensor]) -> torch.dtype | None:
    if not tensors or not all(isinstance(a, (Tensor, bool, int, float)) for a in operands):
        return None
    if len(operands) == 2:
        return torch.result_type(*operands)
    same = all(t.dtype is tensors[0].dtype for t in tensors)
    return tensors[0].dtype if same and (len(operands) == 1 or tensors[0].dtype.is_floating_point) else None


def broadcast(tensors: list[Tensor], dtype: torch.dtype) -> Tensor | None:
    """Return the meta tensor that combines these elementwise, or None where they do not fit together.

    >>> broadcast([torch.empty(2, 3), torch.empty(3)], torch.bool).shape
    torch.Size([2, 3])
    """
    first = tensors[0]
    if all(t.shape == first.shape and t.is_contiguous() for t in tensors):
        return torch.empty(first.shape, dtype=dtype, device="meta")
    shape = broadcast_shape([t.shape for t in tensors])
    if shape is None:
        return None
    return torch.empty_strided(shape, _strides(shape, tensors), dtype=dtype, device="meta")


def _strides(shape: list[int], tensors: list[Tensor]) -> list[int]:
    """Return the strides of a new result, as PyTorch's TensorIterator chooses them: axes in the operands' order."""
    if all(list(t.shape) == shape and t.stride() == tensors[0].stride() for t in tensors) and is_dense(tensors[0]):
        return list(tensors[0].stride())
    steps = [_steps(shape, t) for t in tensors]
    order = list(range(len(shape)))[::-1]  # from the innermost axis outwards
    for i in range(1, len(order)):
        inner = i
        for outer in range(i - 1, -1, -1):
            order_of_both = _compare(shape, steps, order[outer], order[inner])
            if order_of_both > 0:
                order[outer], order[inner] = order[inner], order[outer]
                inner = outer
            elif order_of_both < 0:
                break
    strides, step = [0] * len(shape), 1
    for axis in order:
        strides[axis] = step
        step *= max(shape[axis], 1)
    return strides


def _steps(shape: list[int], x: Tensor) -> list[int]:
    missing = len(shape) - x.dim()
    own = [
        0 if n == 1 and shape[missing + k] != 1 else s for k, (n, s) in enumerate(zip(x.shape, x.stride(), strict=True))
    ]
    return [0] * missing + own


def _compare(shape: list[int], steps: list[list[int]], a: int, b: int) -> int:
    for step in steps:
        if step[a] == 0 or step[b] == 0:
            continue
        if step[a] != step[b]:
            return -1 if step[a] < step[b] else 1
        if shape[a] > shape[b]:
            return 1
    return 0


def broadcast_shape(shapes: list[torch.Size]) -> list[int] | None:
    """Return the shape that shapes broadcast to, or None.

    >>> broadcast_shape([torch.Size([2, 1]), torch.Size([3])])
    [2, 3]
    """
    result = [1] * max(map(len, shapes))
    for shape in shapes:
        for k, n in enumerate(shape, len(result) - len(shape)):
            if n != 1:
                if result[k] not in (1, n):
                    return None
                result[k] = n
    return result
