"""What gradients ask of a scan: a loop that keeps what the loop back needs, and the loop back.

The loop back begins at the last step. It carries the cotangents of the carry and the sums of the gradients of what is
closed over; its outputs are the gradients of the xs.
"""

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.engine.transforms.scanning.program import Program, Tensors, is_float


@attrs.frozen
class Back:
    """The loop back.

    Attributes:
        program: its program.
        tensors: what it is called with.
        carry: the positions of the carry whose gradients are its first results.
        consts: the positions of the consts whose gradients come next.
        xs: the positions of the xs whose gradients come last.
        later: as in `Joint`.
    """

    program: Program
    tensors: Tensors
    carry: list[int]
    consts: list[int]
    xs: list[int]
    later: list[tuple[int, int, int, bool]] = attrs.field(factory=list)


def with_history(program: Program) -> Program:
    """Return a program that also puts out what each step began with: its carry, and whether it is made, if it stops."""

    def step(carry: Tensors, row: Tensors, consts: Tensors) -> tuple[Tensors, Tensors]:
        after, ys = program.step(carry, row, consts)
        made = [~carry[0]] if program.stops else []
        return after, [*ys, *made, *carry[program.stops :]]

    return attrs.evolve(program, step=step, traced=None)


def back_by_recomputing(
    program: Program,
    history: Sequence[Tensor],
    xs: Tensors,
    consts: Tensors,
    cotangents: Sequence[Tensor | None],
    needed: Sequence[bool],
) -> Back:
    """Return the loop back that computes each step again from its carry.

    Args:
        program: the scan, without its history.
        history: what `with_history` puts out besides.
        xs: those of the scan.
        consts: those of the scan.
        cotangents: of the last carry and of the ys; None for zeros.
        needed: of which tensors of the scan gradients are wanted.
    """
    made, starts = list(history[: program.stops]), list(history[program.stops :])
    if program.skips:
        made = [xs[0]]
    of_carry = [k for k in range(program.stops, program.carry) if is_float(starts[k - program.stops])]
    of_xs = [k for k, x in enumerate(xs) if is_float(x) and needed[program.carry + k]]
    of_consts = [k for k, c in enumerate(consts) if is_float(c) and needed[program.carry + program.xs + k]]
    of_ys = [k for k, c in enumerate(cotangents[program.carry :]) if c is not None]
    n_carry, n_consts, n_made, n_ys = len(of_carry), len(of_consts), len(made), len(of_ys)

    def step(carry: Tensors, row: Tensors, consts: Tensors) -> tuple[Tensors, Tensors]:
        made, row = row[:n_made], row[n_made:]
        cotangents, start, x = row[:n_ys], row[n_ys : n_ys + len(starts)], row[n_ys + len(starts) :]

        def again(*floats: Tensor) -> tuple[Tensor, ...]:
            old, rows, shared = _fill(program, made, start, x, consts)
            for place, k, t in zip([old] * n_carry + [rows] * len(of_xs) + [shared] * n_consts, positions, floats):  # noqa: B905
                place[k] = t
            after, ys = program.step(old, rows, shared)
            return (*(after[k] for k in of_carry), *(ys[k] for k in of_ys))

        old, rows, shared = _fill(program, made, start, x, consts)
        floats = [*(old[k] for k in of_carry), *(rows[k] for k in of_xs), *(shared[k] for k in of_consts)]
        pulled: Any = torch.func.vjp(again, *floats)
        gradients = pulled[1]((*carry[:n_carry], *cotangents))
        back, by_row, by_const = _split(gradients, n_carry, len(of_xs))
        return [*back, *(a + g for a, g in zip(carry[n_carry:], by_const, strict=True))], list(by_row)

    positions = [*of_carry, *of_xs, *of_consts]
    first = [_or_zeros(cotangents[k], starts[k - program.stops][0] if program.length else None) for k in of_carry]
    sums = [torch.zeros_like(consts[k]) for k in of_consts]
    rows = [*made, *(c for c in cotangents[program.carry :] if c is not None), *starts, *xs]
    back = Program(
        step,
        carry=n_carry + n_consts,
        xs=len(rows),
        length=program.length,
        reverse=not program.reverse,
        skips=bool(made),
        masked=program.masked,
        recomputes=program.recomputes,
        name=program.name,
    )
    return Back(back, [*first, *sums, *rows, *consts], of_carry, of_consts, of_xs)


def _fill(
    program: Program, made: Tensors, start: Tensors, x: Tensors, consts: Tensors
) -> tuple[Tensors, Tensors, Tensors]:
    stopped = [~made[0]] if program.stops else []
    return [*stopped, *start], list(x), list(consts)


def _split(values: Sequence[Tensor], first: int, second: int) -> tuple[Sequence[Tensor], ...]:
    return values[:first], values[first : first + second], values[first + second :]


def _or_zeros(cotangent: Tensor | None, like: Tensor | None) -> Tensor:
    return torch.zeros_like(like) if cotangent is None else cotangent  # pyright: ignore
