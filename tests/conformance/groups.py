"""Groups of cases: one operator in one mode and dtype, or one part of the pairs; what is known of one is one record."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from . import pairs
from .cases import ERRORS, MODES, cases, has
from .catalogue import DTYPES, operators
from .judging import OUTCOMES, Case, Verdict, judge

KEPT = 6
"""How many failing cases of a group are recorded in full: the first of each detail."""

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


def cases_of(group: Group) -> Iterator[Case]:
    """Yield the cases of a group."""
    if group.mode == pairs.PAIRS:
        yield from pair_cases_of(group)
    else:
        yield from cases(*group)


def pair_cases_of(group: Group) -> Iterator[Case]:
    yield from pairs.pair_cases(group.op, group.dtype)


def run_group(group: Group, crashed: list[str] = (), begin: Callable[[str], None] = lambda case: None) -> dict[str, Any]:
    """Judge the cases of a group and return its record.

    Args:
        group: the group.
        crashed: names of cases that ended the process before; they count as raw.
        begin: is told the name of each case before it runs, so that a process that ends tells which one it was.
    """
    began = time.perf_counter()
    counts: Counter[str] = Counter({"raw": len(crashed)} if crashed else {})
    reasons: dict[str, Counter[str]] = {outcome: Counter() for outcome in OUTCOMES[1:]}
    failing = [{"case": case, "outcome": "raw", "detail": "the process ended", "trace": ""} for case in crashed]
    reasons["raw"].update(["the process ended"] * len(crashed))
    for case in cases_of(group):
        if case.name in crashed:
            continue
        begin(case.name)
        verdict = judge(case)
        counts.update([verdict.outcome, *(["exact"] if verdict.exact else [])])
        if verdict.outcome != "right":
            if verdict.outcome in ("wrong", "raw") and not reasons[verdict.outcome][verdict.detail]:
                failing.append(_record(case, verdict))
            reasons[verdict.outcome][verdict.detail] += 1
    seconds = round(time.perf_counter() - began, 3)
    return _line(group, counts, reasons, failing) | {"seconds": seconds}


def _record(case: Case, verdict: Verdict) -> dict[str, str]:
    return {"case": case.name, "outcome": verdict.outcome, "detail": verdict.detail, "trace": verdict.trace[-1500:]}


def _line(group: Group, counts: Counter, reasons: dict[str, Counter], failing: list[dict]) -> dict[str, Any]:
    told = {outcome: dict(found.most_common(12)) for outcome, found in reasons.items() if found}
    return {**group._asdict(), "counts": dict(counts), "reasons": told, "failing": failing[:KEPT]}
