"""Which pieces at the end of a chain a kernel stands for, and how it is called with trees."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import schedule, tree
from functrain.dispatch_state import is_differentiated_by_hand, is_plain, is_transformed
from functrain.engine.backends.freed_memory import keep_freed_memory
from functrain.engine.tracing.abstract_tensor import Abstract
from functrain.engine.tracing.recording import is_recorded
from functrain.errors import TreeMismatch
from functrain.operators import KERNELS
from functrain.optim.context import Context
from functrain.optim.fused.adam import ADAM
from functrain.optim.fused.sgd import SGD
from functrain.optim.transform import Primitive, Transform, primitive_of

SMALL = 1 << 18
"""Elements up to which the leaves are one operation of a graph, all together; a larger one is an operation of its own,
which can follow its gradient at once. Where the gradients are passed to the function there is nothing to follow. Among
matrix products, which empty the caches, a call takes 0.1 ms, as long as the update of 150,000 elements."""

_KEPT = 1 << 14
"""Elements from which the C library would give back the memory of a leaf that is freed."""


@attrs.frozen
class Path:
    """The kernel for some pieces.

    Attributes:
        operator: the name of (lists of parameters, of each slot, of gradients, *rest) -> the first ones after an
            update, in one list; a name, so that an optimizer can be pickled.
        slots: the names of the slots.
        at: which of the pieces keeps them.
        rest: what else the operator takes: (the state of that piece, the learning rate) -> arguments.
        lr: the learning rate.
    """

    operator: str
    slots: tuple[str, ...]
    at: int
    rest: Callable[[dict, Any], tuple]
    lr: Any

    def __call__(self, updates: Any, state: tuple, params: Any, context: Context) -> tuple[Any, tuple] | None:
        """Return what a step returns, None where the kernel does not fit."""
        if is_transformed() or is_differentiated_by_hand():
            return None
        recorded, kept, lr = is_recorded(), state[self.at], schedule.value(self.lr, context)
        if not (recorded or is_plain()) or not _fits_scalar(lr):
            return None
        rows = _rows(params, updates, [kept[slot] for slot in self.slots])
        if not rows:
            return None
        counted = {"count": kept["count"] + 1} if "count" in kept else {}
        rest = self.rest(counted, _scalar(lr) if recorded else lr)
        run = _record if recorded else _run_at_once
        after, *columns = (iter(column) for column in run(_OPERATORS[self.operator], rows, rest))
        slots = {slot: _fill(params, column) for slot, column in zip(self.slots, columns, strict=True)}
        states = (*state[: self.at], slots | counted, *state[self.at + 1 :])
        return _fill(params, after), states


def _rows(params: Any, updates: Any, slots: list[Any]) -> list[tuple[Tensor, ...]] | None:
    """Return for each leaf the parameter, its slots and its gradient, None where one of them does not fit."""
    rows: list[tuple[Tensor, ...]] = []
    grad = torch.is_grad_enabled()

    def look(p: Tensor, *others: Tensor) -> None:
        rows.append((p, *others) if _fits(p, others, grad) else ())

    try:
        tree.map(look, params, *slots, updates)
    except TreeMismatch:  # the pieces themselves have the words for it
        return None
    return None if () in rows else [(*row[:-1], _contiguous(row[-1])) for row in rows]


def _fits(p: Tensor, others: Sequence[Tensor], grad: bool) -> bool:
    if type(p) not in _TENSORS or p.dtype not in _DTYPES or not p.is_contiguous():
        return False
    if p.device.type != "cpu" or (grad and p.requires_grad):
        return False
    shape, dtype = p.shape, p.dtype
    for t in others:
        if type(t) not in _TENSORS or t.dtype is not dtype or t.shape != shape or (grad and t.requires_grad):
            return False
    return all(t.is_contiguous() for t in others[:-1])


_OPERATORS = {"adam": ADAM, "sgd": SGD}
_DTYPES = (torch.float32, torch.float64)
_TENSORS = (Tensor, torch.nn.Parameter, Abstract)


def _contiguous(g: Tensor) -> Tensor:
    return g if g.is_contiguous() and not g.is_neg() else g.resolve_neg().contiguous()


def _fits_scalar(lr: Any) -> bool:
    return not isinstance(lr, Tensor) or (lr.dim() == 0 and lr.device.type == "cpu" and not lr.requires_grad)


def _scalar(lr: Any) -> Tensor:
    return lr.double() if isinstance(lr, Tensor) else torch.full((), lr, dtype=torch.float64, device="cpu")


def _run_at_once(operator: Any, rows: list[tuple[Tensor, ...]], rest: tuple) -> list[Sequence[Tensor]]:
    columns = [list(column) for column in zip(*rows, strict=True)]
    _keep_freed_memory(max(t.numel() for t in columns[0]) > _KEPT)
    made: Any = KERNELS[operator](*columns, *rest)
    return [made[k : k + len(rows)] for k in range(0, len(made), len(rows))]


@cache
def _keep_freed_memory(large: bool) -> None:
    # The next update makes as many new tensors as this one, while the old ones are freed.
    if large:
        keep_freed_memory(1)


def _record(operator: Any, rows: list[tuple[Tensor, ...]], rest: tuple) -> list[Sequence[Tensor]]:
    together = all(_is_passed(row[-1]) for row in rows)
    is_small = [together or row[0].numel() <= SMALL for row in rows]
    small = [k for k, one in enumerate(is_small) if one]
    groups = [small] * bool(small) + [[k] for k, one in enumerate(is_small) if not one]
    made: dict[int, list[Tensor]] = {}
    for group in groups:
        columns = [list(column) for column in zip(*(rows[k] for k in group), strict=True)]
        flat = operator(*columns, *rest)
        for at, k in enumerate(group):
            made[k] = flat[at :: len(group)]
    return list(zip(*(made[k] for k in range(len(rows))), strict=True))


def _is_passed(gradient: Any) -> bool:
    node = gradient.node if isinstance(gradient, Abstract) else None
    return node is None or node.op == "placeholder"


def _fill(like: Any, leaves: Any) -> Any:
    return tree.map(lambda _: next(leaves), like)


def fast_path(pieces: Sequence[Transform]) -> tuple[int, Path | None]:
    """Return a kernel for the last of some pieces, and at which they begin; (0, None) where there is none.

    >>> from functrain import optim
    >>> fast_path([optim.clip_by_global_norm(1.0), optim.scale_by_adam(), optim.scale_by_learning_rate(0.1)])[0]
    1
    """
    for begin in range(len(pieces)):
        primitives = [primitive_of(piece) for piece in pieces[begin:]]
        make = _PATHS.get(tuple(None if p is None else p.name for p in primitives))
        path = None if make is None else make(*primitives)
        if path is not None:
            return begin, path
    return 0, None


def _adam(adam: Primitive, lr: Primitive, decay: Primitive | None, decoupled: bool) -> Path | None:
    weight_decay = {} if decay is None else decay.hypers
    if not _are_numbers(adam.hypers, weight_decay):
        return None
    b1, b2, eps = (float(adam.hypers[name]) for name in ("b1", "b2", "eps"))
    numbers = b1, b2, eps, float(weight_decay.get("weight_decay", 0.0)), decoupled

    def rest(kept: dict, rate: Any) -> tuple:
        return kept["count"], rate, *numbers

    return Path("adam", ("mean", "square"), int(decay is not None and not decoupled), rest, lr.hypers["lr"])


def _sgd(trace: Primitive, lr: Primitive, decay: Primitive | None) -> Path | None:
    weight_decay = {} if decay is None else decay.hypers
    if not _are_numbers(trace.hypers, weight_decay):
        return None
    numbers = float(trace.hypers["momentum"]), trace.flag, float(weight_decay.get("weight_decay", 0.0))
    return Path("sgd", ("buffer",), int(decay is not None), lambda kept, rate: (rate, *numbers), lr.hypers["lr"])


def _are_numbers(*hypers: Mapping[str, Any]) -> bool:
    return all(type(hyper) in (int, float) for by_name in hypers for hyper in by_name.values())


_PATHS: dict[tuple, Callable[..., Path | None]] = {
    ("adam", "lr"): lambda adam, lr: _adam(adam, lr, None, True),
    ("adam", "decay", "lr"): lambda adam, decay, lr: _adam(adam, lr, decay, True),
    ("decay", "adam", "lr"): lambda decay, adam, lr: _adam(adam, lr, decay, False),
    ("trace", "lr"): lambda trace, lr: _sgd(trace, lr, None),
    ("decay", "trace", "lr"): lambda decay, trace, lr: _sgd(trace, lr, decay),
}
