"""The table of all optimizers in docs/reference/optimizers.md, and what its figures are.

    python tests/optim/optimizer_table.py

measures the memory of each again, writes it into the table, and names what has no row.
"""

import inspect
import re
from pathlib import Path

import torch

from functrain import optim, tree

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/optimizers.md"
ROW = re.compile(r"^\| `(\w+)")
MEMORY = 3
"""The column of the memory."""


def members():
    """All named optimizers by name."""
    public = {name: getattr(optim, name) for name in dir(optim)}
    return {n: f for n, f in public.items() if inspect.isfunction(f) and ".optimizers" in f.__module__}


def rows():
    """The cells of each row of the table, by the optimizer's name."""
    return {
        found[1]: [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in PAGE.read_text().splitlines()
        if (found := ROW.match(line))
    }


def made(name):
    """An optimizer with its defaults, and a rate, or another optimizer, where it has none."""
    make = members()[name]
    needed = [p.name for p in inspect.signature(make).parameters.values() if p.default is p.empty]
    return make(**{key: optim.sgd(0.1) if key == "transform" else 0.1 for key in needed})


def copies(name):
    """The numbers that its state holds for a matrix, over those of the matrix, to one decimal."""
    params = {"weight": torch.zeros(256, 256)}
    numbers = sum(leaf.numel() * leaf.itemsize / 4 for leaf in tree.leaves(made(name).init(params)))
    return f"{numbers / 256**2:.1f}".removesuffix(".0")


def filled(text):
    """The page with the memory as it is measured."""
    lines = text.splitlines()
    for k, line in enumerate(lines):
        if (found := ROW.match(line)) and found[1] in members():
            cells = line.split(" | ")
            cells[MEMORY] = copies(found[1])
            lines[k] = " | ".join(cells)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
    print("no row:", *sorted(members().keys() - rows().keys()) or ["none is missing"])
