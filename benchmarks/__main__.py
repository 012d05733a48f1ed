"""Run the benchmarks: `python -m benchmarks [WORKLOAD ...] [--rounds N] [--only ENTRANT ...]`."""

import argparse
import sys

import torch
from rich.console import Console

from benchmarks.harness import THREADS, known, run_all


def main() -> None:
    """Run the named workloads, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", nargs="*", help=f"some of {', '.join(known())}; all when none is named")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each entrant, interleaved")
    parser.add_argument("--only", nargs="*", help="entrants to run")
    args = parser.parse_args()
    unknown = [name for name in args.workload if name not in known()]
    if unknown:
        parser.error(f"unknown workload {unknown[0]!r}; choose from {', '.join(known())}")
    console = Console(width=110)
    console.print(f"PyTorch {torch.__version__}, {THREADS} threads, {args.rounds} interleaved rounds, medians\n")
    if not run_all(args.workload or known(), args.rounds, args.only, console):
        sys.exit(1)


if __name__ == "__main__":
    main()
