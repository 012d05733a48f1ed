"""The scan: a fold over the rows of tensors that a trace records as one loop instead of once a row."""

from collections.abc import Callable
from typing import Any

from torch.fx.experimental.proxy_tensor import get_proxy_mode

from functrain import arguments, tree
from functrain.dispatch_state import is_differentiated_by_hand
from functrain.engine.tracing.recording import recording
from functrain.engine.transforms.folding import Stop
from functrain.engine.transforms.scanning.discovering import record_scan
from functrain.engine.transforms.scanning.looping import run_loop
from functrain.errors import InvalidArgument, ShapeMismatch


def scan(
    f: Callable[[Any, Any], tuple[Any, Any] | Stop], carry: Any, xs: Any, length: int | None = None
) -> tuple[Any, Any]:
    """Carry a value over the rows of a tree of tensors, like `fold`; inside `jit` it is one compiled loop.

    Unlike in `fold`, the outputs always have one row for each row of `xs`, so that their shape does not depend on
    values: after a `Stop` the carry stays as it is and the remaining outputs are zeros.

    Args:
        f: (carry, x) -> (carry, y), or `Stop(carry, y, when=condition)`. Where steps are compiled on another device
            than the CPU, the steps after a stop are still computed, and ignored.
        carry: the first carry, a tree of tensors. `f` must keep its structure, shapes, dtypes and devices.
        xs: a tree of tensors (n, ...), of which each step gets a row; where it is None, each step gets None.
        length: the number of steps n; needed where `xs` is None.

    Returns:
        The last carry, and the outputs stacked, each (n, ...); None where `f` returns None for y.

    Raises:
        InvalidArgument: the number of steps is not known, or `length` is not that of `xs`.
        ShapeMismatch: the tensors of `xs` differ in their first axis.
        NotATensor: something in the carry or `xs` is no tensor.
        TreeMismatch: a step changed the structure, shape, dtype or device of the carry.

    >>> import torch
    >>> scan(lambda total, x: (total + x, total), torch.tensor(0), torch.tensor([1, 2, 3]))
    (tensor(6), tensor([0, 1, 3]))
    """
    tree.check_tensors(carry, "the carry of scan")
    steps = _length(xs, length)
    if steps and is_recorded_as_loop():
        return record_scan(f, carry, xs, steps)
    return run_loop(f, carry, xs, steps)


def is_recorded_as_loop() -> bool:
    """Return whether a loop is to be entered into a trace as a node, in place of its steps.

    >>> is_recorded_as_loop()
    False
    """
    # What differentiates forward by hand leaves no mark on a tensor that could be asked for.
    return recording() is not None and get_proxy_mode() is None and not is_differentiated_by_hand()


def _length(xs: Any, length: int | None) -> int:
    if length is not None:
        arguments.whole("length", length, 0)
    if xs is None:
        if length is None:
            raise InvalidArgument("scan needs the number of steps: pass xs, a tree of tensors, or length=n")
        return length
    tree.check_tensors(xs, "the xs of scan", or_none=True)
    shape_of = {path: tuple(leaf.shape) for path, leaf in tree.leaves_with_path(xs) if leaf is not None}
    scalars = [path for path, shape in shape_of.items() if not shape]
    if scalars:
        raise ShapeMismatch(f"each tensor of xs needs a first axis to scan over, but {_at(scalars[0])} is a scalar")
    sizes = {shape[0] for shape in shape_of.values()}
    if len(sizes) > 1:
        shapes = ", ".join(f"{path or 'xs'} {shape}" for path, shape in shape_of.items())
        raise ShapeMismatch(f"the tensors of xs must have one common first axis, got {shapes}")
    if length is not None and sizes and sizes != {length}:
        raise InvalidArgument(f"length is {length}, but the first axis of xs has {sizes.pop()} rows; leave length out")
    if not sizes and length is None:
        raise InvalidArgument("scan needs the number of steps: xs holds no tensor; pass length=n")
    return sizes.pop() if sizes else length  # pyright: ignore


def _at(path: str) -> str:
    return f"leaf {path}" if path else "it"
