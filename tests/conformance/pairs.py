"""Pairs of operators, the second of the first one's result, drawn from fixed seeds."""

import functools
import random
import re
import warnings
from collections.abc import Callable, Container, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .catalogue import UNINITIALISED, Sample, operators, samples, spread, supports
from .judging import Case
from .layouts import copies, is_plain

PAIRS = "pairs"
CHUNKS, IN_A_CHUNK = 100, 200
"""20,000 pairs: so many groups of so many, each with a seed of its own, so that they can run in any order."""

SAMPLES_EACH = 3
MOST_ELEMENTS = 20_000

UNCHECKED = re.compile("batch_norm|lu_unpack|_segment_reduce|embedding_bag|unpool|_backward|_unsafe_|ormqr|householder")
"""Operators that read or write beyond their memory, eagerly too, where arguments do not fit each other."""


def names() -> list[str]:
    """Return the names of the groups."""
    return [f"pairs.{k:03d}" for k in range(CHUNKS)]


TRYING = "trying "
"""How the name of a pair begins while it is tried in eager execution, which may end the process."""


def pair_cases(
    name: str, dtype: str, begin: Callable[[str], None] = lambda case: None, crashed: Container[str] = ()
) -> Iterator[Case]:
    """Yield the cases of one group: pairs that eager execution accepts, and that draw no random numbers.

    Args:
        name: of the group.
        dtype: of the samples.
        begin: is told what is tried.
        crashed: what ended a process before, when it was tried.
    """
    draw = random.Random(f"{name} {dtype}")
    chosen = sorted(n for n, op in operators().items() if supports(op, dtype) and op.name not in UNINITIALISED)
    found = 0
    while found < IN_A_CHUNK:
        first, second = draw.choice(chosen), draw.choice(chosen)
        case = _pair(first, second, draw.randrange(SAMPLES_EACH), draw.randrange(SAMPLES_EACH), dtype)
        if case is None or TRYING + case.name in crashed:
            continue
        begin(TRYING + case.name)
        if _runs(case):
            yield case
            found += 1


@functools.cache
def _few(name: str, dtype: str) -> list[Sample]:
    found = [s for s in samples(name, dtype) if sum(t.numel() for t in s.tensors) <= MOST_ELEMENTS]
    return [found[k] for k in spread(len(found), SAMPLES_EACH)]


def _pair(first: str, second: str, i: int, j: int, dtype: str) -> Case | None:
    if len(_few(first, dtype)) <= i or len(_few(second, dtype)) <= j:
        return None
    one, two = _few(first, dtype)[i], _few(second, dtype)[j]
    if not isinstance(two.rebuild(tuple(two.tensors))[0], Tensor) or not is_plain(two.tensors[0]):
        return None
    ops, n = operators(), len(one.tensors)
    fits = two.tensors[0].shape if UNCHECKED.search(second) else None

    def f(*tensors: Tensor) -> Any:
        middle = _first_tensor(_call(ops[first], one, tensors[:n]))
        if fits is not None and middle.shape != fits:
            raise ValueError(f"{second} would not see that its arguments do not fit each other")
        return _call(ops[second], two, (middle, *tensors[n:]))

    return Case(f"{first}[{i}] {second}[{j}]", f, [*one.tensors, *two.tensors[1:]])


def _call(op: Any, sample: Sample, tensors: tuple) -> Any:
    first, args, kwargs = sample.rebuild(tensors)
    return op(first, *args, **kwargs)


def _first_tensor(result: Any) -> Tensor:
    return next(leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor))


def _runs(case: Case) -> bool:
    before = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            case.f(*copies(case.tensors))
        except Exception:  # operators refuse what does not fit in many ways
            return False
    return torch.equal(before, torch.get_rng_state())
