"""A long scan whose gradients keep few carries: those at which its chunks begin, about as many as a chunk has steps.

The loop back computes each chunk again before it goes back through it. (Chen et al., Training Deep Nets with Sublinear
Memory Cost, 2016.)
"""

import math
from collections.abc import Callable, Sequence

import attrs
import torch
from torch import Tensor

from functrain.engine.transforms.scanning.program import Program, Tensors

SHORT = 16
"""A loop of fewer steps keeps the carry of each."""


def is_long(program: Program) -> bool:
    """Return whether a scan is to be cut in chunks where it is differentiated."""
    ends = program.stops or program.skips
    return program.recomputes == 2 and not ends and program.length is not None and program.length >= SHORT


def in_chunks(run: Callable, program: Program, tensors: Sequence[Tensor]) -> Tensors:
    """Return what `run` returns, by a scan of scans and a scan of the steps that are left over."""
    length = program.length or 0
    inside = math.isqrt(length - 1) + 1
    outside, left = length // inside, length % inside
    carry, xs, consts = program.cut(tensors)
    chunks = [_chunk_rows(x, outside, inside, program.reverse) for x in xs]
    rest = [x[:left] if program.reverse else x[length - left :] for x in xs]

    def chunk(carry: Tensors, row: Tensors, consts: Tensors) -> tuple[Tensors, Tensors]:
        made = run(attrs.evolve(program, length=inside, recomputes=0), [*carry, *row, *consts])
        return made[: program.carry], made[program.carry :]

    whole = attrs.evolve(program, step=chunk, length=outside, recomputes=1, traced=None)
    made = run(whole, [*carry, *chunks, *consts])
    after, ys = made[: program.carry], [y.flatten(0, 1) for y in made[program.carry :]]
    if not left:
        return [*after, *ys]
    made = run(attrs.evolve(program, length=left, recomputes=1), [*after, *rest, *consts])
    last = made[program.carry :]
    both = [torch.cat([b, a] if program.reverse else [a, b]) for a, b in zip(ys, last, strict=True)]
    return [*made[: program.carry], *both]


def _chunk_rows(x: Tensor, outside: int, inside: int, reverse: bool) -> Tensor:
    count = outside * inside
    return (x[len(x) - count :] if reverse else x[:count]).unflatten(0, (outside, inside))
