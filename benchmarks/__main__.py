"""Run the benchmarks: `python -m benchmarks [WORKLOAD ...] [--rounds N] [--only ENTRANT ...]`."""

import argparse
import os
import sys

import torch
from rich.console import Console

from benchmarks.entrant import CLOCK_VARIABLE
from benchmarks.harness import THREADS, run_all, selected, workload_names


def main() -> None:
    """Run the named workloads, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", nargs="*", help=f"some of {', '.join(workload_names())}; all when none is named")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each entrant, interleaved")
    parser.add_argument("--only", nargs="*", help="entrants to run")
    parser.add_argument("--cpu", action="store_true", help="measure the CPU time of one thread, for a busy machine")
    args = parser.parse_args()
    if args.cpu:
        os.environ[CLOCK_VARIABLE] = "cpu"
    try:
        names = selected(args.workload)
    except ValueError as error:
        parser.error(str(error))
    console = Console(width=110)
    what = "CPU time of 1 thread" if args.cpu else f"{THREADS} threads"
    console.print(f"PyTorch {torch.__version__}, {what}, {args.rounds} interleaved rounds, medians\n")
    if not run_all(names, args.rounds, args.only, console):
        sys.exit(1)


if __name__ == "__main__":
    main()
