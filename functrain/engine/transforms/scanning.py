"""The scan: a fold over the rows of tensors that a trace records as one loop instead of once a row.

Inside `jit` the function is traced once into a body graph, and the outer graph gets one node, a `loop.Loop`.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.fx import GraphModule

from functrain import tree
from functrain.dispatch_state import is_plain, is_transformed
from functrain.engine.graph.functionalizing import functionalized
from functrain.engine.graph.queries import output_of, placeholders
from functrain.engine.graph.scan_node import Loop, lift_constants, unalias, value_of
from functrain.engine.tracing.abstract_tensor import abstract
from functrain.engine.tracing.recording import Recording, recording
from functrain.engine.tracing.to_graph import trace
from functrain.engine.transforms.folding import Stop
from functrain.errors import InvalidArgument, NotATensor, ShapeMismatch, TreeMismatch


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

    >>> scan(lambda total, x: (total + x, total), torch.tensor(0), torch.tensor([1, 2, 3]))
    (tensor(6), tensor([0, 1, 3]))
    """
    tree.check_tensors(carry, "the carry of scan")
    steps = _length(xs, length)
    current = recording()
    # A trace runs without gradients, so where they are on something is being differentiated, as it is in a transform.
    if current is None or is_transformed() or torch.is_grad_enabled():
        return _looped(f, carry, xs, steps)
    return _recorded(current, f, carry, xs, steps)


def _length(xs: Any, length: int | None) -> int:
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 0):
        raise InvalidArgument(f"length must be a whole number of at least 0, got {length!r}")
    if xs is None:
        if length is None:
            raise InvalidArgument("scan needs the number of steps: pass xs, a tree of tensors, or length=n")
        return length
    tree.check_tensors(xs, "the xs of scan", or_none=True)
    found = {path: tuple(leaf.shape) for path, leaf in tree.leaves_with_path(xs) if leaf is not None}
    scalars = [path for path, shape in found.items() if not shape]
    if scalars:
        raise ShapeMismatch(f"each tensor of xs needs a first axis to scan over, but {_at(scalars[0])} is a scalar")
    sizes = {shape[0] for shape in found.values()}
    if len(sizes) > 1:
        shapes = ", ".join(f"{path or 'xs'} {shape}" for path, shape in found.items())
        raise ShapeMismatch(f"the tensors of xs must have one common first axis, got {shapes}")
    if length is not None and sizes and sizes != {length}:
        raise InvalidArgument(f"length is {length}, but the first axis of xs has {sizes.pop()} rows; leave length out")
    if not sizes and length is None:
        raise InvalidArgument("scan needs the number of steps: xs holds no tensor; pass length=n")
    return sizes.pop() if sizes else length  # pyright: ignore


def _at(path: str) -> str:
    return f"leaf {path}" if path else "it"


def _unpack(result: Any) -> tuple[Any, Any, Any]:
    if isinstance(result, Stop):
        return result.carry, result.y, result.when
    if isinstance(result, tuple) and len(result) == 2:
        return *result, False
    raise NotATensor(f"the function of a scan must return (carry, y) or Stop(carry, y), got {type(result).__name__}")


def _check_carry(before: Any, after: Any) -> None:
    old, old_spec = tree.flatten(before)
    new, new_spec = tree.flatten(after)
    if old_spec == new_spec and all(map(_alike, old, new)):
        return
    was, now = dict(tree.leaves_with_path(before)), dict(tree.leaves_with_path(after))
    wrong = [path for path in [*was, *(p for p in now if p not in was)] if not _alike(was.get(path), now.get(path))]
    lines = [
        f"  {path or 'carry'}: began as {_described(was, path)}, became {_described(now, path)}" for path in wrong[:10]
    ]
    lines = lines or [f"  the branches: began as {old_spec}, became {new_spec}"]
    raise TreeMismatch(
        "\n".join(["a step of scan must keep the structure, shapes and dtypes of the carry, but:", *lines])
    )


def _alike(a: Any, b: Any) -> bool:
    return (
        isinstance(a, Tensor)
        and isinstance(b, Tensor)
        and a.shape == b.shape
        and a.dtype == b.dtype
        and a.device == b.device
    )


def _described(leaves: dict[str, Any], path: str) -> str:
    if path not in leaves:
        return "nothing"
    leaf = leaves[path]
    return f"{tree.describe(leaf)} on {leaf.device}" if isinstance(leaf, Tensor) else tree.describe(leaf)


def _outputs(y: Any) -> tuple[list[Tensor], Any]:
    """Return the leaves of a step's output as tensors, and its structure; None is no leaf where it is all of it."""
    if y is None:
        return [], None
    leaves, spec = tree.flatten(y)
    for path, leaf in tree.leaves_with_path(y):
        if not isinstance(leaf, Tensor | bool | int | float | complex):
            raise NotATensor(f"the output of scan: {_at(path)} must be a tensor or a number, got {type(leaf).__name__}")
    return [torch.as_tensor(leaf) for leaf in leaves], spec


# The plain loop, which is unrolled inside torch.func's transforms.


def _looped(f: Callable, carry: Any, xs: Any, steps: int) -> tuple[Any, Any]:
    plain = is_plain()
    stopped: Any = None
    ys: list[list[Tensor]] = []
    spec = None
    for row in _rows(xs, steps):
        after, y, when = _unpack(f(carry, row))
        _check_carry(carry, after)
        leaves, spec = _outputs(y)
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
        leaves, spec = _outputs(_unpack(f(carry, _zero_row(xs)))[1])
        return carry, None if spec is None else tree.unflatten(spec, [x.new_zeros((0, *x.shape)) for x in leaves])
    return carry, None if spec is None else tree.unflatten(spec, [_stacked(group, steps) for group in zip(*ys)])  # noqa: B905


def _columns(xs: Any) -> tuple[list[Tensor], Callable[[Iterable[Any]], Any]]:
    """Return the tensors of xs, and the function that makes a row's tree of a row of each."""
    leaves, spec = tree.flatten(xs)

    def row(some: Iterable[Any]) -> Any:
        following = iter(some)
        return tree.unflatten(spec, [None if leaf is None else next(following) for leaf in leaves])

    return [leaf for leaf in leaves if leaf is not None], row


def _rows(xs: Any, steps: int) -> Iterator[Any]:
    columns, row = _columns(xs)
    if not columns:
        return iter([xs] * steps)
    return (row(some) for some in zip(*(column.unbind(0) for column in columns), strict=True))


def _zero_row(xs: Any) -> Any:
    # Zero steps still need the shapes of the outputs, which only f knows.
    columns, row = _columns(xs)
    return row([column.new_zeros(column.shape[1:]) for column in columns])


def _stacked(ys: tuple[Tensor, ...], steps: int) -> Tensor:
    rest = [torch.zeros_like(ys[0])] * (steps - len(ys))
    return torch.stack([*ys, *rest])


# The recorded loop.


@attrs.define
class _Learned:
    """What the trace of a body learns besides its graph."""

    y_spec: Any = None
    y_count: int = 0
    stops: bool = False


def _recorded(
    current: Recording, f: Callable, carry: Any, xs: Any, steps: int, masked: bool | None = None
) -> tuple[Any, Any]:
    start, spec = tree.flatten(carry)
    columns, row_of = _columns(xs)
    if masked is None:  # asking for the condition at each step costs nothing on the CPU, and a wait anywhere else
        masked = any(leaf.device.type != "cpu" for leaf in start)
    learned = _Learned()
    if masked:
        start = [*start, torch.zeros((), dtype=torch.bool, device=start[0].device)]
    examples: list[Tensor] = [*(abstract(t, t.shape) for t in start), *(abstract(t, t.shape[1:]) for t in columns)]
    body = _trace_body(f, carry, spec, row_of, examples, masked, learned)
    consts = lift_constants(body)
    ys = _add_output_rows(body, learned, len(start))
    unalias(body, ())
    rows: list[Tensor] = [abstract(y, y.shape) for y in ys]
    counts = (len(start), len(columns), len(consts), len(ys))
    loop = Loop(body, [*examples, *map(abstract, consts), *rows], steps, counts, learned.stops)
    made = [abstract(t, t.shape) for t in start] + [abstract(t, (steps, *t.shape)) for t in rows]
    out = current.add(loop, [*start, *columns, *consts], made, "scan")
    last = tree.unflatten(spec, out[: len(start) - masked])
    return last, None if learned.y_spec is None else tree.unflatten(learned.y_spec, out[len(start) :])


def _trace_body(
    f: Callable, carry: Any, spec: Any, row_of: Callable, examples: list[Tensor], masked: bool, learned: _Learned
) -> GraphModule:
    n = spec.num_leaves

    def flat(*args: Tensor) -> list[Tensor]:
        old = list(args[:n])
        stopped, row = (args[n], args[n + 1 :]) if masked else (None, args[n:])
        after, y, when = _unpack(f(tree.unflatten(spec, old), row_of(row)))
        _check_carry(carry, after)
        new = tree.leaves(after)
        leaves, learned.y_spec = _outputs(y)
        learned.y_count = len(leaves)
        learned.stops = (isinstance(when, Tensor) or bool(when)) and not masked
        if learned.stops or masked:
            when = torch.as_tensor(when, device=old[0].device if old else None)
        if stopped is not None:
            new = [torch.where(stopped, a, b) for a, b in zip(old, new, strict=True)]
            leaves = [torch.where(stopped, torch.zeros_like(y), y) for y in leaves]
            return [*new, stopped | when, *leaves]
        return [*new, *leaves, *([when] if learned.stops else [])]

    names = [f"the carry of scan{_inside(path)}" for path, _ in tree.leaves_with_path(carry)]
    names += ["a row of the xs of scan"] * (len(examples) - len(names))
    return functionalized(trace(flat, examples, names).gm)


def _inside(path: str) -> str:
    return f" at {path}" if path else ""


def _add_output_rows(body: GraphModule, learned: _Learned, n_carry: int) -> list[Tensor]:
    """Give the body a placeholder for each output row, which its backend writes into; return examples of them."""
    outputs = output_of(body.graph).args[0]
    ys = [value_of(node) for node in outputs[n_carry : n_carry + learned.y_count]]
    last = placeholders(body.graph)[-1:]
    for i, y in enumerate(ys):
        place = (
            body.graph.inserting_after(last[0]) if last else body.graph.inserting_before(next(iter(body.graph.nodes)))
        )
        with place:
            last = [body.graph.placeholder(f"row_{i}")]
        last[0].meta["val"] = abstract(y, y.shape)
    body.recompile()
    return ys
