"""Run the benchmarks: `python -m benchmarks [WORKLOAD ...] [--rounds N] [--only ENTRANT ...]`."""

import argparse
import sys

import torch
from rich.console import Console

from benchmarks.harness import THREADS, run_all, selected, workload_names


def main() -> None:
    """Run the named workloads, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", nargs="*", help=f"some of {', '.join(workload_names())}; all when none is named")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each entrant, interleaved")
    parser.add_argument("--only", nargs="*", help="entrants to run")
    args = parser.parse_args()
    try:
        names = selected(args.workload)
    except ValueError as error:
        parser.error(str(error))
    console = Console(width=110)
    console.print(f"PyTorch {torch.__version__}, {THREADS} threads, {args.rounds} interleaved rounds, medians\n")
    if not run_all(names, args.rounds, args.only, console):
        sys.exit(1)


if __name__ == "__main__":
    main()
