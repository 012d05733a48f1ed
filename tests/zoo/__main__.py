"""The whole zoo: `python -m tests.zoo [--table docs/explanation/zoo.md] [part of a name ...]`.

It needs `transformers`, and for timm's and torchvision's models `torch==2.14.1 torchvision==0.29.1 timm`; models of a
library that is not installed are left out, and the table says so.
"""

import argparse
import importlib.util
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import torch

from tests.zoo import own_models, transformers_models, vision_models
from tests.zoo.comparing import Case, Outcome, compare

CASES = [*own_models.CASES, *transformers_models.CASES, *vision_models.CASES]

HEAD = """# The zoo: modules that train as models

Each model, made with random weights, is trained for three steps with dropout and batch norm: by its own loop
(`loss.backward()` and `torch.optim.SGD`), and as `nn.from_module(model)`, eager and jitted, under the same draws. It is
right when after each step all parameters and buffers are those of its own loop, leaf by leaf, and no gradient is zero
that there is not. `nodes` are the operations of the graph of a step, forward and backward; `first step` is the time
from the call of the jitted step to its end, tracing included, on two cores that others use too.

Made by `python -m tests.zoo --table docs/explanation/zoo.md`
({versions}).
{right} of {all} are right.

| model | status | nodes | first step (s) |
| --- | --- | ---: | ---: |
"""


def run(case: Case) -> tuple[str, Outcome | None]:
    """Return the status of a case in words, and what came of it."""
    library = case.name.partition(" ")[0]
    if library in ("transformers", "timm", "torchvision") and importlib.util.find_spec(library) is None:
        return f"{library} is not installed", None
    try:
        outcome = compare(case)
    except Exception as error:
        eager = ""
        if type(error).__module__.startswith("functrain"):
            eager = "; eager right" if not compare(case, jit=False).wrong else "; eager wrong"
        return f"refused: {str(error)[:160]}{eager}".replace("|", "/").replace("\n", " "), None
    return (f"wrong: {outcome.wrong[0]}" if outcome.wrong else "right"), outcome


def main() -> int:
    """Run the cases and print, or write, their table."""
    parser = argparse.ArgumentParser(prog="python -m tests.zoo")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    lines, right = [], 0
    chosen = [case for case in CASES if not options.names or any(name in case.name for name in options.names)]
    for case in chosen:
        status, outcome = run(case)
        right += status == "right"
        numbers = ("", "") if outcome is None else (f"{outcome.nodes:,}", f"{outcome.first_step:.2f}")
        lines.append(f"| {case.name} | {status} | {numbers[0]} | {numbers[1]} |")
        print(lines[-1], flush=True)
    installed = [name for name in ("transformers", "timm", "torchvision") if importlib.util.find_spec(name)]
    versions = ", ".join(
        [f"torch {torch.__version__.partition('+')[0]}", *(f"{name} {version(name)}" for name in installed)]
    )
    print(f"{right} of {len(chosen)} are right")
    if options.table:
        options.table.write_text(HEAD.format(versions=versions, right=right, all=len(chosen)) + "\n".join(lines) + "\n")
    return 0 if right == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
