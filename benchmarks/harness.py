"""Runs the entrants of a workload interleaved, each in a process of its own, and compares them."""

import importlib
import json
import math
import os
import pkgutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table

from benchmarks import workloads
from benchmarks.entrant import CLOCK_VARIABLE, Target

THREADS = "2"


@attrs.frozen
class Outcome:
    """What one entrant measured.

    Attributes:
        name: the entrant.
        samples: its measurements, in the unit of the workload.
        check: the number, or the numbers, that all entrants must agree on.
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


def workload_names() -> list[str]:
    """Return the names of the workloads; one that stands in a folder has the folder's name and a dot before its own."""
    names = (module.name.removeprefix(f"{workloads.__name__}.") for module in _modules())
    return sorted(name for name in names if "._" not in f".{name}")


def _modules() -> list[pkgutil.ModuleInfo]:
    below = pkgutil.walk_packages(workloads.__path__, f"{workloads.__name__}.")
    return [module for module in below if not module.ispkg]


def selected(names: Sequence[str]) -> list[str]:
    """Return the workloads that are named, by a name or by that of their folder; all where none is.

    Raises:
        ValueError: there is no workload of a name.
    """
    chosen = []
    for name in names:
        some = [one for one in workload_names() if one == name or one.startswith(f"{name}.")]
        if not some:
            raise ValueError(f"unknown workload {name!r}; choose from {', '.join(workload_names())}")
        chosen += some
    return chosen or workload_names()


def load(workload: str) -> Any:
    """Return the module of a workload."""
    return importlib.import_module(f"benchmarks.workloads.{workload}")


def run_all(names: Sequence[str], rounds: int, only: list[str] | None, console: Console) -> bool:
    """Run and report workloads one after another, and return whether all could be run.

    One that fails says why and does not keep the others from running.
    """
    well = True
    for name in names:
        try:
            report(name, compete(name, rounds, only), console)
        except RuntimeError as error:
            console.print(f"{name}: {error}\n", markup=False)
            well = False
    return well


def start(workload: str, name: str) -> subprocess.Popen:
    """Start the process of an entrant; it prepares at once."""
    # All entrants are alive at once, so that none may take the whole memory of a device for itself.
    threads = "1" if os.environ.get(CLOCK_VARIABLE) == "cpu" else THREADS
    settings = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.entrant", workload, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **settings},
    )


def answer(process: subprocess.Popen, name: str) -> dict[str, Any]:
    """Return the next answer of an entrant's process."""
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"the entrant {name} died with status {process.wait()}; its error is above")
    return json.loads(line)


def compete(workload: str, rounds: int, only: list[str] | None = None) -> list[Outcome]:
    """Return what each entrant measured over interleaved rounds."""
    module = load(workload)
    names = [name for name in module.ENTRANTS if not only or name in only]
    processes, outcomes = {}, {}
    try:
        # Prepared one after another, so that compiling and warming up do not disturb each other.
        for name in names:
            processes[name] = start(workload, name)
            first = answer(processes[name], name)
            outcomes[name] = Outcome(name, [], first.get("check"), first.get("unavailable"))
        agree(list(outcomes.values()), getattr(module, "TOLERANCE", 1e-3))
        for _ in range(rounds):
            for name, outcome in outcomes.items():
                if outcome.unavailable is None:
                    print("run", file=processes[name].stdin, flush=True)
                    outcome.samples.append(answer(processes[name], name)["measured"])
    finally:
        for process in processes.values():
            process.stdin.close()
            process.wait()
            process.stdout.close()
    return list(outcomes.values())


def agree(outcomes: list[Outcome], tolerance: float) -> None:
    """Raise unless all entrants computed the same numbers."""
    present = [o for o in outcomes if o.unavailable is None]
    for other in present[1:]:
        first, second = (o.check if isinstance(o.check, list) else [o.check] for o in (present[0], other))
        if len(first) != len(second) or not all(
            math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance) for a, b in zip(first, second, strict=True)
        ):
            raise RuntimeError(f"{present[0].name} computed {first}, {other.name} {second}: they must agree")


def report(workload: str, outcomes: list[Outcome], console: Console) -> None:
    """Print the medians, and the ratios beside their targets."""
    module = load(workload)
    scale, unit = module.UNIT
    figures = getattr(module, "FIGURES", {})
    console.print(f"{workload}: {module.__doc__.strip().splitlines()[0]}", markup=False)
    table = Table("entrant", f"median {unit}", f"lowest {unit}", "spread", *figures, box=None)
    for o in sorted(outcomes, key=lambda o: (math.isnan(o.median), o.median)):
        if o.unavailable:
            table.add_row(o.name, o.unavailable)
        elif o.samples:
            spread = (max(o.samples) - min(o.samples)) / o.median
            more = [figure(o.median) for figure in figures.values()]
            table.add_row(o.name, f"{o.median * scale:.4g}", f"{min(o.samples) * scale:.4g}", f"{spread:.0%}", *more)
    console.print(table)
    medians = {o.name: o.median for o in outcomes if o.samples}
    for target in module.TARGETS:
        line = verdict(target, medians, scale, unit)
        if line:
            console.print(f"  {line}", markup=False)
    console.print()


def verdict(target: Target, medians: Mapping[str, float], scale: float, unit: str) -> str | None:
    """Return a line that says how far a target is reached, None where an entrant that it names did not run."""
    ours, peer = best(target.ours, medians), None if target.peer is None else best(target.peer, medians)
    if ours is None or (target.peer is not None and peer is None):
        return None
    if peer is None:
        figure, what, limit = medians[ours] * scale, ours, f"{target.limit:g} {unit}"
    else:
        figure, what, limit = medians[ours] / medians[peer], f"{ours} / {peer}", f"{target.limit:g}"
    return f"{what} = {figure:.2f}, target {limit}: {'reached' if figure <= target.limit else 'MISSED'}"


def best(names: str | tuple[str, ...], medians: Mapping[str, float]) -> str | None:
    """Return which of the named entrants was the quickest, None where none of them ran."""
    ran = [name for name in ([names] if isinstance(names, str) else names) if name in medians]
    return min(ran, key=medians.__getitem__, default=None)
