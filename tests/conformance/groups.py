"""Groups of cases: one operator in one mode and dtype, or one part of the pairs; what is known of one is one record."""

import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import attrs

from . import pairs
from .cases import ERRORS, MODES, cases, has
from .catalogue import DTYPES, operators
from .judging import Case, Verdict, judge

KEPT = 6
"""How many failing cases of a group are recorded in full: the first of each detail."""

EMPTY: Mapping[str, str] = MappingProxyType({})
ALL_MODES = (*MODES, ERRORS, pairs.PAIRS)


class Group(NamedTuple):
    """An operator (or a part of the pairs), a mode and a dtype."""

    op: str
    mode: str
    dtype: str


def groups(modes: tuple[str, ...] = ALL_MODES, dtypes: tuple[str, ...] = tuple(DTYPES)) -> Iterator[Group]:
    """Yield all groups, those of one operator and dtype together, as they share their samples."""
    for op in operators():
        for dtype in dtypes:
            yield from (Group(op, m, dtype) for m in modes if m != pairs.PAIRS and has(op, m, dtype))
    if pairs.PAIRS in modes and "float32" in dtypes:
        yield from (Group(name, pairs.PAIRS, "float32") for name in pairs.names())


def cases_of(
    group: Group, begin: Callable[[str], None] = lambda case: None, crashed: Container[str] = ()
) -> Iterator[Case]:
    """Yield the cases of a group, see `run_group`."""
    if group.mode == pairs.PAIRS:
        yield from pairs.pair_cases(group.op, group.dtype, begin, crashed)
    else:
        yield from cases(*group)


def run_group(
    group: Group, crashed: Mapping[str, str] = EMPTY, begin: Callable[[str], None] = lambda case: None
) -> dict[str, Any]:
    """Judge the cases of a group and return its record.

    Args:
        group: the group.
        crashed: name -> how the process ended, of cases that ended it before; they count as raw.
        begin: is told the name of each case before it runs, so that a process that ends tells which one it was.
    """
    began = time.perf_counter()
    verdicts = [_crashed(case, ended) for case, ended in crashed.items()]
    for case in cases_of(group, begin, crashed):
        if case.name not in crashed:
            begin(case.name)
            verdicts.append((case.name, judge(case)))
    return _line(group, verdicts) | {"seconds": round(time.perf_counter() - began, 3)}


def given_up(group: Group, crashed: Mapping[str, str]) -> dict[str, Any]:
    """Return the record of a group that ended its process again and again."""
    return _line(group, [_crashed(case, ended) for case, ended in crashed.items()]) | {"seconds": 0}


def _crashed(case: str, ended: str) -> tuple[str, Verdict]:
    if case.startswith(pairs.TRYING):
        return case, Verdict("skipped", f"eager execution: {ended}")
    return case, Verdict("raw", ended)


def _line(group: Group, verdicts: list[tuple[str, Verdict]]) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {}
    failing = []
    for case, verdict in verdicts:
        counts.update([verdict.outcome, *(flag for flag in ("exact", "required") if getattr(verdict, flag))])
        if verdict.outcome != "right":
            seen = reasons.setdefault(verdict.outcome, Counter())
            if verdict.outcome in ("wrong", "raw") and verdict.detail not in seen and len(failing) < KEPT:
                failing.append({"case": case, **attrs.asdict(verdict), "trace": verdict.trace[-1500:]})
            seen[verdict.detail] += 1
    told = {outcome: dict(found.most_common(12)) for outcome, found in reasons.items()}
    return {**group._asdict(), "counts": dict(counts), "reasons": told, "failing": failing}
