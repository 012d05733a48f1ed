"""The plain loop, of a scan that is not traced: it is right under any transform, which sees each of its steps."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from functrain import tree
from functrain.dispatch_state import is_plain
from functrain.engine.transforms.scanning.steps import check_carry, columns_of, outputs_of, unpack


def run_loop(f: Callable, carry: Any, xs: Any, steps: int) -> tuple[Any, Any]:
    """Return what `scan` returns, step by step.

    >>> run_loop(lambda c, x: (c + x, None), torch.tensor(0), torch.tensor([1, 2]), 2)
    (tensor(3), None)
    """
    plain = is_plain()
    stopped: Any = None
    ys: list[list[Tensor]] = []
    spec = None
    for row in _rows(xs, steps):
        after, y, when = unpack(f(carry, row))
        check_carry(carry, after)
        leaves, spec = outputs_of(y)
        if stopped is not None:
            after = tree.map(lambda old, new: torch.where(stopped, old, new), carry, after)  # noqa: B023
            leaves = [torch.where(stopped, torch.zeros_like(leaf), leaf) for leaf in leaves]
        carry = after
        ys.append(leaves)
        if isinstance(when, Tensor) and not plain:
            stopped = when if stopped is None else stopped | when
        elif when:
            break
    if not ys:
        leaves, spec = outputs_of(unpack(f(carry, _zero_row(xs)))[1])
        return carry, None if spec is None else tree.unflatten(spec, [x.new_zeros((0, *x.shape)) for x in leaves])
    return carry, None if spec is None else tree.unflatten(spec, [_stack(group, steps) for group in zip(*ys)])  # noqa: B905


def _rows(xs: Any, steps: int) -> Iterator[Any]:
    columns, row = columns_of(xs)
    if not columns:
        return iter([xs] * steps)
    return (row(some) for some in zip(*(column.unbind(0) for column in columns), strict=True))


def _zero_row(xs: Any) -> Any:
    # Zero steps still need the shapes of the outputs, which only f knows.
    columns, row = columns_of(xs)
    return row([column.new_zeros(column.shape[1:]) for column in columns])


def _stack(ys: tuple[Tensor, ...], steps: int) -> Tensor:
    rest = [torch.zeros_like(ys[0])] * (steps - len(ys))
    return torch.stack([*ys, *rest])
