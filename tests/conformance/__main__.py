"""The command line: `python -m tests.conformance run | table | show`."""

import argparse
from pathlib import Path

from .catalogue import DTYPES
from .groups import ALL_MODES
from .report import show, table
from .running import run, work


def main() -> None:
    options = _parser().parse_args()
    if options.command == "run":
        run(options.out, options.part, options.ops, tuple(options.modes), tuple(options.dtypes))
    elif options.command == "table":
        text = table(options.out)
        (options.out / "table.md").write_text(text)
        print(text)
    elif options.command == "show":
        show(options.op, tuple(options.modes), tuple(options.dtypes))
    else:
        work(options.file)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run", help="run what a folder does not have yet")
    runs.add_argument("--out", type=Path, required=True, help="the folder of the records")
    runs.add_argument("--part", type=_part, default=(1, 1), help="K/N: the K-th of N parts, one a process")
    runs.add_argument("--ops", default="", help="a regular expression that the operator's name contains")
    tables = commands.add_parser("table", help="print the records of a folder as Markdown")
    tables.add_argument("--out", type=Path, required=True)
    shows = commands.add_parser("show", help="run one operator again, with the tracebacks")
    shows.add_argument("op")
    for some in (runs, shows):
        some.add_argument("--modes", nargs="+", default=ALL_MODES, choices=ALL_MODES)
        some.add_argument("--dtypes", nargs="+", default=tuple(DTYPES), choices=tuple(DTYPES))
    commands.add_parser("work").add_argument("file", type=Path)
    return parser


def _part(text: str) -> tuple[int, int]:
    k, n = map(int, text.split("/"))
    if not 1 <= k <= n:
        raise argparse.ArgumentTypeError("a part is K/N with 1 <= K <= N")
    return k, n


if __name__ == "__main__":
    main()
