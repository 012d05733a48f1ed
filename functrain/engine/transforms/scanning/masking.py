"""Steps that are made and ignored: where the end of a loop cannot be asked for, or differs within a batch."""

import attrs
import torch
from torch import Tensor

from functrain.engine.transforms.scanning.program import Program, Tensors


def mask_steps(program: Program) -> Program:
    """Return a program that does the same with each step made: after a stop, and where it skips, nothing changes.

    The outputs of a step that is ignored are zeros. What ends it is asked for no more, unless it has no length.
    """
    if program.masked:
        return program

    def step(carry: Tensors, row: Tensors, consts: Tensors) -> tuple[Tensors, Tensors]:
        idle = _idle(program, carry, row)
        after, ys = program.step(carry, row, consts)
        kept = [_where(idle, old, new) for old, new in zip(carry, after, strict=True)]
        if program.stops:
            kept[0] = carry[0] | after[0]
        return kept, [_where(idle, torch.zeros_like(y), y) for y in ys]

    return attrs.evolve(program, step=step, masked=True, traced=None)


def _idle(program: Program, carry: Tensors, row: Tensors) -> Tensor:
    stopped = carry[0] if program.stops else None
    skipped = ~row[0] if program.skips else None
    if stopped is None or skipped is None:
        return stopped if skipped is None else skipped  # pyright: ignore
    return stopped | skipped


def _where(idle: Tensor, old: Tensor, new: Tensor) -> Tensor:
    return torch.where(idle, old, new)


def without_asking(program: Program) -> Program:
    """Return a program whose loop asks for no values, for devices where that means to wait.

    A loop without a length must be asked whether it is at its end.
    """
    if program.length is None or not (program.stops or program.skips):
        return program
    return attrs.evolve(mask_steps(program), stops=False, skips=False)
