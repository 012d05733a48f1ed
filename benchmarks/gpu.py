"""Run the benchmarks on a CUDA device: `python -m benchmarks.gpu [WORKLOAD ...] [--device cuda:0] [--rounds N]`.

Prints the device's name and the table, and writes nothing.
"""

import argparse
import os
import sys

import torch
from rich.console import Console

from benchmarks.entrant import DEVICE_VARIABLE
from benchmarks.harness import run_all

TABLE = ("dispatch", "step", "epoch", "cnn", "gpt", "memory", "first_step", "random", "gpt2")


def missing(device: str) -> str | None:
    """Return why there is no such device, None when it is there."""
    if not device.startswith("cuda"):
        return f"{device!r} is no CUDA device; python -m benchmarks runs on the CPU"
    build = f"PyTorch {torch.__version__}" + ("" if torch.version.cuda else ", which is built without CUDA,")
    if not torch.cuda.is_available():
        return f"no CUDA device is at hand: {build} sees none. Nothing was run"
    index = torch.device(device).index
    if index is not None and index >= torch.cuda.device_count():
        return f"there is no {device}: {build} sees {torch.cuda.device_count()} of them"
    return None


def described(device: str) -> str:
    """Return a line that names the device and what runs on it."""
    of = torch.cuda.get_device_properties(device)
    size = f"{of.total_memory / 2**30:.0f} GiB, compute capability {of.major}.{of.minor}"
    return f"{of.name}, {size}; PyTorch {torch.__version__}, CUDA {torch.version.cuda}"


def main(arguments: list[str] | None = None) -> None:
    """Run the named workloads, or all that say something about a CUDA device."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", nargs="*", help=f"some of {', '.join(TABLE)}; all when none is named")
    parser.add_argument("--device", default=os.environ.get(DEVICE_VARIABLE, "cuda"), help="cuda, cuda:1, ...")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each entrant, interleaved")
    parser.add_argument("--only", nargs="*", help="entrants to run")
    args = parser.parse_args(arguments)
    unknown = [name for name in args.workload if name not in TABLE]
    if unknown:
        parser.error(f"unknown workload {unknown[0]!r}; choose from {', '.join(TABLE)}")
    reason = missing(args.device)
    if reason:
        sys.exit(f"benchmarks.gpu: {reason}")
    os.environ[DEVICE_VARIABLE] = args.device  # read by the workloads, here and in the processes of their entrants
    console = Console(width=140)
    console.print(f"{described(args.device)}, {args.rounds} interleaved rounds, medians\n", markup=False)
    if not run_all(args.workload or TABLE, args.rounds, args.only, console):
        sys.exit(1)


if __name__ == "__main__":
    main()
