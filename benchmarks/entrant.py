"""What a workload's entrant is, and the process in which it runs.

    python -m benchmarks.entrant WORKLOAD NAME

The process prepares the entrant, prints its check value, then measures once for each line it reads.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable

import attrs

DEVICE_VARIABLE = "FUNCTRAIN_BENCH_DEVICE"
"""The environment variable that says where the workloads run: "cpu" (the default), "cuda", "cuda:1"..."""


CLOCK_VARIABLE = "FUNCTRAIN_BENCH_CLOCK"
"""The environment variable that says what is measured: "wall" (the default), or "cpu", the time of the process on the
CPU, which other processes of a busy machine disturb less."""

clock = time.process_time if os.environ.get(CLOCK_VARIABLE) == "cpu" else time.perf_counter


@attrs.frozen
class Entrant:
    """One way to do a workload.

    Attributes:
        run: does it once; what is timed, unless it returns a number: then that is the measurement.
        check: returns a number (or a list of them) that all entrants of the workload must agree on.
    """

    run: Callable[[], float | None]
    check: Callable[[], float | list[float]]


@attrs.frozen
class Target:
    """What to reach: `ours` needs at most `limit` times what `peer` needs.

    Attributes:
        ours: an entrant, or several, of which the best counts.
        peer: the same; None where the limit is a figure in the workload's unit, and no ratio.
        limit: the most that reaches the target.
    """

    ours: str | tuple[str, ...]
    peer: str | tuple[str, ...] | None
    limit: float


class Unavailable(Exception):
    """Raised by a factory whose library is not installed, or whose device is not there."""


def measure(run: Callable[[], float | None]) -> float:
    """Return what one run measured, its seconds by the `clock` unless it says otherwise."""
    begun = clock()
    measured = run()
    return clock() - begun if measured is None else measured


def main(workload: str, name: str) -> None:
    """Prepare one entrant, then measure it each time a line comes."""
    say = sys.stdout
    sys.stdout = sys.stderr  # a library that prints must not disturb the protocol
    module = importlib.import_module(f"benchmarks.workloads.{workload}")
    try:
        entrant = module.ENTRANTS[name]()
        first = {"check": entrant.check()}
    except Unavailable as reason:
        first = {"unavailable": str(reason)}
    print(json.dumps(first), file=say, flush=True)
    for _ in sys.stdin:
        print(json.dumps({"measured": measure(entrant.run)}), file=say, flush=True)


if __name__ == "__main__":
    # Not this module's own main: its Unavailable is another class than the one that the workloads raise.
    importlib.import_module("benchmarks.entrant").main(*sys.argv[1:])
