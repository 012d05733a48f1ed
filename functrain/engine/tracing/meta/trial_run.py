"""The trial run: an operation is run on zeros that are laid out as its arguments are, to see what it returns."""

import contextlib
from collections.abc import Iterator
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.dispatch_contexts import outside_of_trace
from functrain.engine.tracing.meta.geometry import extent, map_tensors, offset_of, tensors_in
from functrain.engine.tracing.refusals import Refused

MOST_BYTES = 1 << 32
"""Arguments of more memory are not made for a trial."""
MOST_KEPT = 8192

_kept: dict[Any, Any] = {}
_learned: dict[Any, Any] = {}
"""What operations were seen to return at a first call, where a rule had said otherwise."""


@attrs.frozen
class Layout:
    """What of a new tensor is known without its values."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    is_conj: bool
    is_neg: bool

    def new(self) -> Tensor:
        """Return a new meta tensor like this."""
        meta = torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")
        meta = torch.conj(meta) if self.is_conj else meta
        return torch._neg_view(meta) if self.is_neg else meta  # pyright: ignore


@attrs.frozen
class Argument:
    """A result that is an argument: the position among the tensors of the call."""

    position: int


def trial_run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Return meta tensors like the results of an operation, as it was seen to return them.

    Args:
        func: the operation.
        args: its arguments, tensors without memory among them.
        kwargs: further ones.

    Raises:
        Exception: what the operation raises for such arguments.
    """
    tensors = list(tensors_in((args, tuple(kwargs.values()))))
    key = _key(func, args, kwargs, tensors)
    if key not in _kept:
        if len(_kept) >= MOST_KEPT:
            _kept.clear()
        _kept[key] = _seen(func, args, kwargs, tensors)
    return _build(_kept[key], tensors)


def learn(func: Any, args: Any, kwargs: dict[str, Any], seen: Any) -> None:
    """Have `recall` know from now on what an operation returned.

    Args:
        func: the operation.
        args: its arguments, tensors without memory among them.
        kwargs: further ones.
        seen: what it returned for such arguments.
    """
    tensors = list(tensors_in((args, tuple(kwargs.values()))))
    if len(_learned) >= MOST_KEPT:  # what is forgotten is learned again
        _learned.clear()
    _learned[_key(func, args, kwargs, tensors)] = layout_of(seen)


def recall(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Return meta tensors like the results that an operation was seen to return at a call, or None."""
    if not _learned:
        return None
    tensors = list(tensors_in((args, tuple(kwargs.values()))))
    layout = _learned.get(_key(func, args, kwargs, tensors))
    return None if layout is None else _build(layout, tensors)


def layout_of(out: Any) -> Any:
    """Return the layouts of the results of an operation.

    >>> layout_of(torch.ones(2, 3)).stride
    (3, 1)
    """
    return _layouts(out, [])


def _build(layout: Any, tensors: list[Tensor]) -> Any:
    if isinstance(layout, Layout):
        return layout.new()
    if isinstance(layout, Argument):
        return tensors[layout.position].meta  # pyright: ignore
    return type(layout)(_build(part, tensors) for part in layout) if isinstance(layout, (list, tuple)) else layout


def _key(func: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> Any:
    # What else a kernel may choose its layout by: the number of threads, and the dtype of new tensors.
    around = torch.get_default_dtype(), torch.get_num_threads()
    memories: dict[int, int] = {}
    described = []
    for t in tensors:
        memory = t.meta.untyped_storage()._cdata  # pyright: ignore
        described.append((_describe(t), memories.setdefault(memory, len(memories)), t.device))
    # Not None for a tensor, which is an index too: x[i, :, j] is not x[:, i, j].
    static = map_tensors(lambda t: ..., args), sorted((k, map_tensors(lambda t: ..., v)) for k, v in kwargs.items())
    return func, around, tuple(described), repr(static)


def _describe(t: Tensor) -> tuple:
    return tuple(t.shape), t.stride(), offset_of(t), t.dtype, t.is_conj(), t.is_neg()


def _seen(func: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> Any:
    # Integers are mostly positions: 0 is one wherever there is any, but pivots begin with 1, and nothing divides by 0.
    failure: Exception | None = None
    for number in (0, 1):
        made = _zeros(tensors, number)
        remaining = iter(made)
        try:
            with outside_of_trace(), _without_draws(func):
                out = func(*map_tensors(lambda t: next(remaining), args), **_map_over(kwargs, remaining))  # noqa: B023
            _check_shapes(made, tensors)
            return _layouts(out, made)
        except (RuntimeError, IndexError, ValueError, NotImplementedError) as error:
            failure = failure or error
            if all(t.dtype.is_floating_point or t.dtype.is_complex for t in tensors):
                break
    raise failure  # pyright: ignore


@contextlib.contextmanager
def _without_draws(func: Any) -> Iterator[None]:
    """Refuse an operator of the user's that draws from PyTorch's global generator, which its schema does not say."""
    if func.namespace in ("aten", "prims"):
        yield
        return
    before = torch.get_rng_state()
    yield
    if not torch.equal(torch.get_rng_state(), before):
        torch.set_rng_state(before)
        raise Refused("random", func._schema.name)


def _check_shapes(made: list[Tensor], tensors: list[Tensor]) -> None:
    # An `out=` that does not fit is given other memory.
    if any(m.shape != t.shape or m.stride() != t.stride() for m, t in zip(made, tensors, strict=True)):
        raise Refused("resize")


def _map_over(kwargs: dict[str, Any], remaining: Any) -> dict[str, Any]:
    return {k: map_tensors(lambda t: next(remaining), v) for k, v in kwargs.items()}


def _zeros(tensors: list[Tensor], number: int) -> list[Tensor]:
    """Return tensors of zeros that are laid out, and share memory, as these do."""
    ends: dict[int, int] = {}
    for t in tensors:
        memory = t.meta.untyped_storage()._cdata  # pyright: ignore
        ends[memory] = max(ends.get(memory, 0), extent(t)[1] * t.itemsize)
    if sum(ends.values()) > MOST_BYTES:
        raise Refused("value")
    device = {t.meta.untyped_storage()._cdata: t.device for t in tensors}  # pyright: ignore
    units: dict[int, int] = {}
    for t in tensors:  # a tensor is made of bytes, and no byte more: some operations look at how many there are
        memory = t.meta.untyped_storage()._cdata  # pyright: ignore
        units[memory] = max(units.get(memory, 1), t.itemsize)
    sizes = {k: -(-n // units[k]) * units[k] for k, n in ends.items()}
    memories = {k: torch.zeros(n, dtype=torch.uint8, device=device[k]) for k, n in sizes.items()}
    return [_place(t, memories[t.meta.untyped_storage()._cdata], number) for t in tensors]  # pyright: ignore


def _place(t: Tensor, memory: Tensor, number: int) -> Tensor:
    made = memory.view(t.dtype).as_strided(t.shape, t.stride(), offset_of(t))
    if number and not (t.dtype.is_floating_point or t.dtype.is_complex or t.dtype is torch.bool):
        memory.view(t.dtype).fill_(number)
    made = torch.conj(made) if t.is_conj() else made
    return torch._neg_view(made) if t.is_neg() else made  # pyright: ignore


def _layouts(out: Any, made: list[Tensor]) -> Any:
    if isinstance(out, (list, tuple)):
        return type(out)(_layouts(o, made) for o in out)
    if not isinstance(out, Tensor):
        return out
    for position, t in enumerate(made):
        if out is t:
            return Argument(position)
    if out.layout is not torch.strided:
        raise Refused("layout", str(out.layout).removeprefix("torch."))
    return Layout(tuple(out.shape), out.stride(), out.dtype, out.is_conj(), out.is_neg())
