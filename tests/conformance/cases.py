"""The modes: each makes, of the samples of an operator, functions of tensors to judge."""

from collections.abc import Callable, Iterator
from typing import Any

import attrs
from torch import Tensor

import functrain as ft

from .catalogue import UNINITIALISED, Sample, error_samples, operators, samples, spread, supports
from .followers import FOLLOWERS, followed, weighted_sum
from .judging import Case
from .layouts import is_plain, laid_out


@attrs.frozen(eq=False)
class Mode:
    """A way to make cases.

    Attributes:
        make: (operator, its sample) -> name -> function of the sample's tensors.
        most: how many samples of an operator at most are taken, evenly spread over them; None for all.
        layout: the layout that the tensors are given, or None to leave them as they are.
        closed: whether the function closes over the tensors.
        dtypes: in which dtypes it runs.
        where: which operators have it.
    """

    make: Callable[[Any, Sample], dict[str, Callable]]
    most: int | None = None
    layout: str | None = None
    closed: bool = False
    dtypes: tuple[str, ...] = ("float32", "bfloat16", "int64", "bool", "complex64")
    where: Callable[[Any], bool] = lambda op: True


def _alone(op: Any, sample: Sample) -> dict[str, Callable]:
    def f(*tensors: Tensor) -> Any:
        first, args, kwargs = sample.rebuild(tensors)
        return op(first, *args, **kwargs)

    return {"": f}


def _in_place(op: Any, sample: Sample) -> dict[str, Callable]:
    def f(*tensors: Tensor) -> Any:
        first, args, kwargs = sample.rebuild(tensors)
        changed = first.clone()
        return op.inplace_variant(changed, *args, **kwargs), changed

    return {"": f}


def _followed(op: Any, sample: Sample) -> dict[str, Callable]:
    return {name: followed(_alone(op, sample)[""], name) for name in FOLLOWERS}


def _gradient(op: Any, sample: Sample) -> dict[str, Callable]:
    at = [k for k, t in enumerate(sample.tensors) if is_plain(t) and (t.is_floating_point() or t.is_complex())]

    def f(*tensors: Tensor) -> Any:
        def value(chosen: list[Tensor]) -> Tensor:
            given = list(tensors)
            for k, t in zip(at, chosen, strict=True):
                given[k] = t
            return weighted_sum(sample.process(_alone(op, sample)[""](*given)))

        return ft.grad(value)([tensors[k] for k in at])

    return {"": f} if at else {}


REAL_AND_COMPLEX = ("float32", "complex64")

MODES = {
    "passed": Mode(_alone),
    "closed": Mode(_alone, most=30, closed=True),
    "transposed": Mode(_alone, most=8, layout="transposed"),
    "channels_last": Mode(_alone, most=8, layout="channels_last"),
    "expanded": Mode(_alone, most=8, layout="expanded"),
    "sliced": Mode(_alone, most=8, layout="sliced"),
    "offset": Mode(_alone, most=8, layout="offset"),
    "closed_transposed": Mode(_alone, most=4, layout="transposed", closed=True),
    "gradient": Mode(_gradient, most=16, dtypes=REAL_AND_COMPLEX, where=lambda op: op.supports_autograd),
    "gradient_transposed": Mode(
        _gradient, most=6, layout="transposed", dtypes=REAL_AND_COMPLEX, where=lambda op: op.supports_autograd
    ),
    "followed": Mode(_followed, most=4),
    "followed_closed": Mode(_followed, most=2, closed=True, dtypes=REAL_AND_COMPLEX),
    "in_place": Mode(_in_place, most=12, where=lambda op: op.inplace_variant is not None),
    "in_place_closed": Mode(_in_place, most=4, closed=True, where=lambda op: op.inplace_variant is not None),
}
"""Name -> mode. Only "passed" runs all samples: the others' caps keep the whole to about an hour on two cores."""

ERRORS = "errors"
"""The mode of the inputs that an operator must refuse."""


def has(name: str, mode: str, dtype: str) -> bool:
    """Return whether an operator has cases of a mode and a dtype."""
    op = operators()[name]
    if mode == ERRORS:
        return dtype == "float32" and op.error_inputs_func is not None
    return dtype in MODES[mode].dtypes and MODES[mode].where(op) and supports(op, dtype)


def cases(name: str, mode: str, dtype: str) -> Iterator[Case]:
    """Yield the cases of an operator in a mode and a dtype."""
    op = operators()[name]
    if mode == ERRORS:
        yield from (
            Case(str(k), _alone(op, sample)[""], sample.tensors, must_raise=True)
            for k, sample in enumerate(error_samples(name))
        )
        return
    found = samples(name, dtype)
    numbered = _laid_out(found, MODES[mode]) if MODES[mode].layout else list(enumerate(found))
    for at in spread(len(numbered), MODES[mode].most or len(numbered)):
        yield from _of_sample(op, MODES[mode], *numbered[at])


def _of_sample(op: Any, mode: Mode, k: int, sample: Sample) -> Iterator[Case]:
    for kind, f in mode.make(op, sample).items():
        values = op.name not in UNINITIALISED
        yield Case(f"{k} {kind}".strip(), f, sample.tensors, closed=mode.closed, values=values)


def _laid_out(found: tuple[Sample, ...], mode: Mode) -> list[tuple[int, Sample]]:
    """Return the samples that a layout changes; four times as many are looked at as are taken."""
    new = []
    for k in spread(len(found), 4 * (mode.most or len(found))):
        tensors = laid_out(found[k].tensors, str(mode.layout))
        if tensors is not None:
            new.append((k, attrs.evolve(found[k], tensors=tensors)))
    return new
