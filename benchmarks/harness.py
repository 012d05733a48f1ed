"""Runs the entrants of a workload interleaved, each in a process of its own, and compares them."""

import importlib
import json
import math
import os
import statistics
import subprocess
import sys
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table

THREADS = "2"


@attrs.frozen
class Outcome:
    """What one entrant measured.

    Attributes:
        name: the entrant.
        samples: its measurements, in the unit of the workload.
        check: the number that all entrants must agree on.
        unavailable: why it could not run, or None.
    """

    name: str
    samples: list[float]
    check: Any
    unavailable: str | None = None

    @property
    def median(self) -> float:
        """The median of the samples, NaN when there are none."""
        return statistics.median(self.samples) if self.samples else math.nan


def start(workload: str, name: str) -> subprocess.Popen:
    """Start the process of an entrant; it prepares at once."""
    threads = {"OMP_NUM_THREADS": THREADS, "MKL_NUM_THREADS": THREADS}
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.entrant", workload, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **threads},
    )


def answer(process: subprocess.Popen, name: str) -> dict[str, Any]:
    """Return the next answer of an entrant's process."""
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"the entrant {name} died with status {process.wait()}; its error is above")
    return json.loads(line)


def compete(workload: str, rounds: int, only: list[str] | None = None) -> list[Outcome]:
    """Return what each entrant measured over interleaved rounds."""
    module = importlib.import_module(f"benchmarks.workloads.{workload}")
    names = [name for name in module.ENTRANTS if not only or name in only]
    # Prepared one after another, so that compiling and warming up do not disturb each other.
    processes, outcomes = {}, {}
    for name in names:
        process = start(workload, name)
        first = answer(process, name)
        outcomes[name] = Outcome(name, [], first.get("check"), first.get("unavailable"))
        if outcomes[name].unavailable is None:
            processes[name] = process
    agree(list(outcomes.values()), getattr(module, "TOLERANCE", 1e-3))
    for _ in range(rounds):
        for name, process in processes.items():
            print("run", file=process.stdin, flush=True)
            outcomes[name].samples.append(answer(process, name)["measured"])
    for process in processes.values():
        process.stdin.close()
        process.wait()
    return list(outcomes.values())


def agree(outcomes: list[Outcome], tolerance: float) -> None:
    """Raise unless all entrants computed the same numbers."""
    present = [o for o in outcomes if o.unavailable is None]
    for other in present[1:]:
        first, second = (o.check if isinstance(o.check, list) else [o.check] for o in (present[0], other))
        if len(first) != len(second) or not all(
            math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance) for a, b in zip(first, second, strict=False)
        ):
            raise RuntimeError(f"{present[0].name} computed {first}, {other.name} {second}: they must agree")


def report(workload: str, outcomes: list[Outcome], console: Console) -> None:
    """Print the medians, and the ratios beside their targets."""
    module = importlib.import_module(f"benchmarks.workloads.{workload}")
    scale, unit = module.UNIT
    summary = (module.__doc__ or "").strip().splitlines()[0]
    table = Table("entrant", f"median {unit}", f"lowest {unit}", "spread", title=f"{workload}: {summary}", box=None)
    for o in sorted(outcomes, key=lambda o: (math.isnan(o.median), o.median)):
        if o.unavailable:
            table.add_row(o.name, o.unavailable)
        else:
            spread = (max(o.samples) - min(o.samples)) / o.median
            table.add_row(o.name, f"{o.median * scale:.4g}", f"{min(o.samples) * scale:.4g}", f"{spread:.0%}")
    console.print(table)
    medians = {o.name: o.median for o in outcomes}
    for target in module.TARGETS:
        ratio = medians.get(target.ours, math.nan) / medians.get(target.peer, math.nan)
        if not math.isnan(ratio):
            verdict = "reached" if ratio <= target.limit else "MISSED"
            console.print(f"  {target.ours} / {target.peer} = {ratio:.2f}, target {target.limit:g}: {verdict}")
    console.print()
