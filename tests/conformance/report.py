"""What the records say, as Markdown tables; and one operator run again, with the tracebacks."""

import traceback
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from .groups import Group, cases_of, groups
from .judging import OUTCOMES, judge
from .running import read

COLUMNS = (*OUTCOMES, "exact", "required")


def table(out: Path) -> str:
    """Return the records of a folder as Markdown: counts, refusals, and causes of what is wrong or raw."""
    records = read(out)
    parts = [_counts(records), _share(records), _causes(records, "wrong"), _causes(records, "raw"), _refusals(records)]
    return "\n\n".join(parts) + "\n"


def _counts(records: list[dict[str, Any]]) -> str:
    sums: dict[tuple[str, str], Counter] = defaultdict(Counter)
    for record in records:
        for key in ((record["mode"], record["dtype"]), ("all", "")):
            sums[key].update(record["counts"])
            sums[key]["seconds"] += record["seconds"]
    rows = [[*key, *(f"{found[c]:,}" for c in COLUMNS), f"{found['seconds']:.0f}"] for key, found in sums.items()]
    return _markdown("Cases", ["mode", "dtype", *COLUMNS, "seconds"], sorted(rows, key=lambda row: row[0] == "all"))


def _share(records: list[dict[str, Any]]) -> str:
    passed = Counter()
    for record in records:
        if (record["mode"], record["dtype"]) == ("passed", "float32"):
            passed.update(record["counts"])
    total = sum(passed[o] for o in OUTCOMES) or 1
    return f"Refused: {passed['refused']:,} of {total:,} float32 sample inputs, {passed['refused'] / total:.2%}."


def _causes(records: list[dict[str, Any]], outcome: str) -> str:
    found: dict[str, Counter] = defaultdict(Counter)
    for record in records:
        for detail, n in record["reasons"].get(outcome, {}).items():
            found[_kind(detail)][f"{record['op']} ({record['mode']})"] += n
    rows = [[kind, f"{sum(ops.values()):,}", len(ops), _some(ops)] for kind, ops in found.items()]
    return _markdown(f"Causes of {outcome}", ["cause", "cases", "groups", "the most frequent"], _largest_first(rows))


def _refusals(records: list[dict[str, Any]]) -> str:
    found: dict[str, Counter] = defaultdict(Counter)
    for record in records:
        if record["mode"] == "passed":
            for detail, n in record["reasons"].get("refused", {}).items():
                found[detail][record["op"]] += n
    rows = [[detail, f"{sum(ops.values()):,}", len(ops), _some(ops, len(ops))] for detail, ops in found.items()]
    return _markdown("Refused (mode passed)", ["reason", "cases", "operators", "which"], _largest_first(rows))


def _kind(detail: str) -> str:
    """Return a detail without the numbers that a comparison found, which differ from case to case."""
    for word in ("values", "strides", "shape", "dtype", "structure", "value", "layout"):
        if f"call: {word}:" in detail:
            return f"{detail.split(':')[0]}: other {word}"
    return detail


def _some(ops: Counter, most: int = 6) -> str:
    return ", ".join(f"{op} {n}" for op, n in ops.most_common(most)) + (", ..." if len(ops) > most else "")


def _largest_first(rows: list[list]) -> list[list]:
    return sorted(rows, key=lambda row: -int(row[1].replace(",", "")))


def _markdown(title: str, head: list[str], rows: list[list]) -> str:
    lines = [" | ".join(str(cell).replace("|", "\\|") for cell in row) for row in [head, ["---"] * len(head), *rows]]
    return f"## {title}\n\n" + "\n".join(f"| {line} |" for line in lines)


def show(op: str, modes: tuple[str, ...], dtypes: tuple[str, ...]) -> None:
    """Run one operator and print each case that is wrong, raw or refused, with its traceback."""
    for group in groups(modes, dtypes):
        if group.op == op:
            _show(group)


def _show(group: Group) -> None:
    counts: Counter[str] = Counter()
    for case in cases_of(group):
        try:
            verdict = judge(case)
        except Exception:  # a fault of this harness: it is shown, and the others go on
            traceback.print_exc()
            continue
        counts[verdict.outcome] += 1
        if verdict.outcome in ("wrong", "raw", "refused"):
            given = [(tuple(t.shape), str(t.dtype)) for t in case.tensors]
            print(f"{' '.join(group)}, case {case.name}: {verdict.outcome}, {verdict.detail}\n  tensors {given}")
            print("\n".join(f"    {line}" for line in verdict.trace.splitlines()))
    print(" ".join(group), dict(counts))
