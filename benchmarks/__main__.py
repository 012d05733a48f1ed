"""Run the benchmarks: `python -m benchmarks [WORKLOAD ...] [--rounds N] [--only ENTRANT ...]`."""

import argparse
import pkgutil

import torch
from rich.console import Console

from benchmarks import workloads
from benchmarks.harness import compete, report


def main() -> None:
    """Run the named workloads, or all."""
    known = sorted(module.name for module in pkgutil.iter_modules(workloads.__path__) if module.name[0] != "_")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", nargs="*", help=f"some of {', '.join(known)}; all when none is named")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each entrant, interleaved")
    parser.add_argument("--only", nargs="*", help="entrants to run")
    args = parser.parse_args()
    unknown = [name for name in args.workload if name not in known]
    if unknown:
        parser.error(f"unknown workload {unknown[0]!r}; choose from {', '.join(known)}")
    console = Console(width=110)
    console.print(f"PyTorch {torch.__version__}, 2 threads, {args.rounds} interleaved rounds, medians\n")
    for name in args.workload or known:
        report(name, compete(name, args.rounds, args.only), console)


if __name__ == "__main__":
    main()
