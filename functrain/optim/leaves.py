"""From the formula of one array to a transform of trees."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from functrain import schedule, tree
from functrain.errors import InvalidArgument, TreeMismatch
from functrain.optim.context import Context
from functrain.optim.shapes import check_trainable, counter, device, explain_mismatch
from functrain.optim.transform import Transform
from functrain.schedule import Hyper

Slots = Mapping[str, Callable[[Tensor], Tensor]]


def per_leaf(
    label: str,
    formula: Callable[..., Any],
    hypers: Mapping[str, Hyper] | None = None,
    slots: Sequence[str] | Slots = (),
    *,
    counts: bool = False,
    shared: Mapping[str, float] | None = None,
    once: Callable[[SimpleNamespace], Mapping[str, Any]] | None = None,
    sums: Mapping[str, Callable[..., Tensor]] | None = None,
    real: bool = False,
) -> Transform:
    """Return the transform of all leaves that a formula of one array states.

    The formula computes in float32 at least and in real numbers: a leaf of a short dtype is widened before and its
    update rounded after, a complex number counts as two real ones (as in `torch.optim`), and a scalar is an array of
    one element. It changes no tensor.

    Args:
        label: what the transform's repr calls it.
        formula: (now, g, p, *slots) -> u, or a tuple (u, *slots) of the update and the next slots. g is what comes in,
            p the parameter. `now` has the current value of each hyperparameter by name.
        hypers: the hyperparameters by name.
        slots: what is kept for each leaf between updates: names, of slots that begin with zeros; or by name a function
            that makes the first value of the parameter (as the formula sees it).
        counts: whether the formula looks at `now.t`, the number of this update, which is 1 in the first, a float64
            scalar.
        shared: numbers that are kept between updates for all leaves together, by name with their first value; float64
            scalars. `now` has their last values, and `once` returns the next.
        once: now -> more values by name, which all leaves share; so they are computed once an update.
        sums: more values by name for `once` and the formula: the sums over all leaves, float64 scalars, of what a
            function (now, g, p, *slots) gives of each leaf, with the slots before this update.
        real: whether complex parameters are refused.

    Returns:
        A `Transform`. Its state is a dict of trees like the parameters, by the slots' names, in float32 at least, of
        the shared numbers, and of "count", the updates seen, where it counts; or `()` when there is nothing to keep.

    Raises:
        InvalidArgument: a slot is called "count". In `update`, the formula returned another number of slots.
        DtypeMismatch: in `init`, a parameter is neither floating-point nor complex, or complex and refused.
        TreeMismatch: in `update`, gradients, parameters and state do not fit.

    >>> def lion(now, g, p, m):
    ...     return torch.lerp(m, g, 1 - now.b1).sign(), torch.lerp(m, g, 1 - now.b2)
    >>> scale_by_lion = per_leaf("scale_by_lion", lion, {"b1": 0.9, "b2": 0.99}, slots=["momentum"])
    >>> params = {"w": torch.zeros(2)}
    >>> scale_by_lion.update({"w": torch.tensor([3.0, -0.1])}, scale_by_lion.init(params), params)
    ({'w': tensor([ 1., -1.])}, {'momentum': {'w': tensor([ 0.0300, -0.0010])}})
    """
    makers = dict(slots) if isinstance(slots, Mapping) else dict.fromkeys(slots, torch.zeros_like)
    hypers, shared, sums = dict(hypers or {}), dict(shared or {}), dict(sums or {})
    width = len(makers) + counts + len(shared)
    if not callable(formula):
        raise InvalidArgument(f"formula must be a function of (now, gradient, parameter, *slots), got {formula!r}")
    if "count" in makers:
        raise InvalidArgument('a slot must not be called "count", which is what counts updates')

    def init(params: Any) -> Any:
        check_trainable(params, real=real)
        kept: dict[str, Any] = {slot: tree.map(partial(_first_value, make), params) for slot, make in makers.items()}
        if counts:
            kept["count"] = counter(params)
        for key, first in shared.items():
            kept[key] = torch.full((), first, dtype=torch.float64, device=device(params))
        return kept or ()

    def update(updates: Any, state: Any, params: Any, context: Context) -> tuple[Any, Any]:
        if len(state) != width:
            raise ValueError("the state has other slots than the transform")  # in words: `explain_failure`
        now = SimpleNamespace(**{key: schedule.value(hyper, context) for key, hyper in hypers.items()})
        kept: dict[str, Any] = {}
        if counts:
            kept["count"] = state["count"] + 1
            now.t = kept["count"].double()
        vars(now).update({key: state[key] for key in shared})
        try:
            slots = [state[slot] for slot in makers]
            vars(now).update({key: _sum(partial(f, now), updates, params, slots) for key, f in sums.items()})
            if once is not None:
                vars(now).update(once(now))
            columns = _columns(partial(_of_leaf, formula, now), updates, params, slots)
        except (TreeMismatch, RuntimeError):
            explain_mismatch(updates, params, {slot: (init(params)[slot], state[slot]) for slot in makers})
            raise
        after, *columns = columns
        kept.update({key: getattr(now, key) for key in shared})
        return after, {**dict(zip(makers, columns, strict=True)), **kept} or ()

    return Transform(init, update, hypers, label=label)


def _first_value(make: Callable[[Tensor], Tensor], param: Tensor) -> Tensor:
    wide = param.to(_wide(param.dtype))
    seen, value = _seen(wide, wide.dtype), make(_seen(wide, wide.dtype))
    # A slot of another shape (a row's or a column's) is no complex number in two parts.
    return _unseen(value, wide) if value.shape == seen.shape else value


def _columns(f: Callable[..., tuple], updates: Any, params: Any, slots: list[Any]) -> list[Any]:
    """Return the trees of f's first results, of its second ones, and so on, over the leaves of some trees."""
    rows: list[tuple] = []

    def of_leaf(*leaves: Tensor) -> None:
        rows.append(f(*leaves))

    tree.map(of_leaf, updates, params, *slots)
    return [_refill(updates, rows, i) for i in range(1 + len(slots))]


def _refill(like: Any, rows: list[tuple], i: int) -> Any:
    waiting = iter(rows)
    return tree.map(lambda _: next(waiting)[i], like)


def _sum(f: Callable[..., Tensor], updates: Any, params: Any, slots: list[Any]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64, device=device(params))

    def of_leaf(g: Tensor, p: Tensor, *slots: Tensor) -> None:
        nonlocal total
        _check_shape(g, p)
        dtype = _wide(torch.promote_types(g.dtype, p.dtype))
        total = total + f(*(_seen(leaf, dtype) for leaf in (g, p)), *(_seen(s, s.dtype) for s in slots)).double()

    tree.map(of_leaf, updates, params, *slots)
    return total


def _check_shape(g: Any, p: Tensor) -> None:
    if getattr(g, "shape", None) != p.shape:
        raise TreeMismatch("the gradients must have the shapes of the parameters")  # by path: `explain_mismatch`


def _of_leaf(formula: Callable[..., Any], now: Any, g: Any, p: Tensor, *slots: Tensor) -> tuple[Tensor, ...]:
    _check_shape(g, p)
    if g.dtype is p.dtype and g.dtype in _AS_THEY_ARE and p.dim() > 0:
        results = formula(now, g, p, *slots)
    else:
        dtype = _wide(torch.promote_types(g.dtype, p.dtype))
        results = formula(now, *(_seen(leaf, dtype) for leaf in (g, p)), *(_seen(s, s.dtype) for s in slots))
    results = results if type(results) is tuple else (results,)
    if len(results) != 1 + len(slots):
        raise InvalidArgument(
            f"the formula must return the update and {len(slots)} slots, a tuple of {1 + len(slots)} tensors; it "
            f"returned {len(results)}"
        )
    return tuple(map(_unseen, results, (g, *slots)))


_AS_THEY_ARE = (torch.float32, torch.float64)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _seen(leaf: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a leaf as a formula sees it: of a wide dtype, real, and with an axis, so that no scalar promotes it."""
    leaf = leaf.to(dtype)
    if leaf.is_complex():
        return torch.view_as_real(leaf.resolve_conj())
    return leaf.reshape(1) if leaf.dim() == 0 else leaf


def _unseen(new: Tensor, old: Tensor) -> Tensor:
    """Return what a formula made of a leaf, with the leaf's dtype and shape."""
    if new.shape == old.shape and new.dtype is old.dtype:  # most are: this runs for each leaf of each update
        return new
    if old.is_complex():
        new = torch.view_as_complex(new.contiguous())
    elif old.dim() == 0 and new.dim() == 1:
        new = new.reshape(())
    if new.shape != old.shape:
        raise TreeMismatch(  # by path: `explain_mismatch`
            f"the formula must keep shapes, and made {tree.describe(new)} of {tree.describe(old)}"
        )
    return new if new.dtype == old.dtype else new.to(old.dtype)
