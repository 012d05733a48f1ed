"""Running all groups in processes of their own: what ends a process, or hangs, is recorded, and the rest goes on."""

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, TextIO

from .groups import Group, given_up, groups, run_group
from .limits import begin_limit, wait

ROOT = Path(__file__).resolve().parents[2]
GROUPS_A_PROCESS = 800
MOST_CRASHES = 5
SAMPLES = "making the samples"
WIDTH = 400


def run(out: Path, part: tuple[int, int], ops: str, modes: tuple[str, ...], dtypes: tuple[str, ...]) -> None:
    """Run the groups that are not in the folder yet; each adds a line to `results-K-of-N.jsonl`.

    Args:
        out: the folder.
        part: (k, n): the k-th part of n, counted from 1; the parts divide the operators.
        ops: a regular expression that the name of an operator contains.
        modes: which modes.
        dtypes: which dtypes.
    """
    out.mkdir(parents=True, exist_ok=True)
    wanted = [g for g in groups(modes, dtypes) if re.search(ops, g.op)]
    mine = {op: k % part[1] + 1 == part[0] for k, op in enumerate(dict.fromkeys(g.op for g in wanted))}
    done = {Group(line["op"], line["mode"], line["dtype"]) for line in read(out)}
    waiting = [g for g in wanted if mine[g.op] and g not in done]
    file = out / f"results-{part[0]}-of-{part[1]}.jsonl"
    crashed: dict[Group, dict[str, str]] = defaultdict(dict)
    while waiting:
        print(f"{len(wanted) - len(waiting)} of {len(wanted)} groups done or of other parts", flush=True)
        finished = _process(waiting[:GROUPS_A_PROCESS], crashed, file)
        waiting = [g for g in waiting if g not in finished]


def read(out: Path) -> list[dict[str, Any]]:
    """Return the records in a folder. A line that was cut off is not there."""
    lines = [line for file in sorted(out.glob("results-*.jsonl")) for line in file.read_text().split("\n")]
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def _process(batch: list[Group], crashed: dict[Group, dict[str, str]], file: Path) -> set[Group]:
    """Run groups in one process, until it ends; return those that are finished with."""
    progress, log = file.with_suffix(".progress"), file.with_suffix(".log")
    progress.write_text("")
    before = len(_finished(file))
    with log.open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.conformance", "work", str(file)],
            stdin=subprocess.PIPE, stdout=errors, stderr=errors, text=True, cwd=ROOT,
        )  # fmt: skip
        _send(process.stdin, [(g, crashed.get(g, {})) for g in batch])
        ended = wait(process, progress)
    finished = set(_finished(file)[before:])
    current, case = _current(progress)
    if current in batch and current not in finished:
        crashed[current][case] = ended
        print(f"{' '.join(current)}, case {case}: {ended}", flush=True)
        if case == SAMPLES or len(crashed[current]) >= MOST_CRASHES:
            _append(file, given_up(current, crashed[current]))
            finished.add(current)
    elif not finished:
        raise RuntimeError(f"no group was run: {ended}; see {log}")
    return finished


def _send(pipe: TextIO | None, work: list[tuple[Group, dict[str, str]]]) -> None:
    assert pipe is not None
    pipe.write(json.dumps(work))
    pipe.close()


def _finished(file: Path) -> list[Group]:
    if not file.exists():
        return []
    lines = [json.loads(line) for line in file.read_text().split("\n") if line.endswith("}")]
    return [Group(line["op"], line["mode"], line["dtype"]) for line in lines]


def _current(progress: Path) -> tuple[Group | None, str]:
    parts = progress.read_text().rstrip().split("\t")
    return (Group(*parts[:3]), parts[3]) if len(parts) == 4 else (None, "")


def _append(file: Path, record: dict[str, Any]) -> None:
    with file.open("a") as results:
        results.write(json.dumps(record) + "\n")


def work(file: Path) -> None:
    """Run the groups that standard input names; this is what the processes do."""
    progress = os.open(file.with_suffix(".progress"), os.O_WRONLY | os.O_CREAT)
    for group, crashed in [(Group(*g), crashed) for g, crashed in json.load(sys.stdin)]:

        def begin(case: str, group: Group = group) -> None:
            line = "\t".join((*group, case)).encode()[:WIDTH].ljust(WIDTH)
            os.pwrite(progress, line, 0)
            begin_limit()

        begin(SAMPLES)
        _append(file, run_group(group, crashed, begin))
