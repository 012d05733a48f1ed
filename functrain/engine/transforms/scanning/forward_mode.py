"""A scan under `jvp`: a loop that carries the tangents beside the values."""

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.engine.transforms.scanning.program import Program, Tensors, is_float


@attrs.frozen
class Forward:
    """The loop with tangents.

    Attributes:
        program: carries the carry, then the tangents of its floating-point tensors; puts out the tangents of the ys.
        tensors: what it is called with.
    """

    program: Program
    tensors: Tensors


def with_tangents(program: Program, tensors: Sequence[Tensor], tangents: Sequence[Tensor | None]) -> Forward:
    """Return the loop that computes the tangents of a scan.

    Args:
        program: the scan.
        tensors: its tensors.
        tangents: of each; None for zeros.
    """
    carry, xs, consts = program.cut(tensors)
    by_carry, by_xs, by_consts = program.cut(tangents)  # pyright: ignore
    of_carry = [k for k, t in enumerate(carry) if is_float(t)]
    of_xs = [k for k, t in enumerate(by_xs) if t is not None and is_float(xs[k])]
    of_consts = [k for k, t in enumerate(by_consts) if t is not None and is_float(consts[k])]

    def step(carry: Tensors, row: Tensors, consts: Tensors) -> tuple[Tensors, Tensors]:
        places = carry[: program.carry], row[: program.xs], consts[: len(consts) - len(of_consts)]
        moving = [*carry[program.carry :], *row[program.xs :], *consts[len(places[2]) :]]

        def floats(*values: Tensor) -> Any:
            filled, rest = [list(p) for p in places], iter(values)
            for place, positions in zip(filled, (of_carry, of_xs, of_consts), strict=True):
                for k in positions:
                    place[k] = next(rest)
            after, ys = program.step(*filled)
            exact = [t for t in after if not is_float(t)]
            return ([t for t in after if is_float(t)], [y for y in ys if is_float(y)]), exact

        at = [p[k] for p, ks in zip(places, (of_carry, of_xs, of_consts), strict=True) for k in ks]
        pushed: Any = torch.func.jvp(floats, tuple(at), tuple(moving), has_aux=True)
        (new, _), (by_new, by_ys), exact = pushed
        new, exact = iter(new), iter(exact)
        after = [next(new) if k in of_carry else next(exact) for k in range(program.carry)]
        return [*after, *by_new], by_ys

    first = [torch.zeros_like(carry[k]) if by_carry[k] is None else by_carry[k] for k in of_carry]
    rows, shared = [by_xs[k] for k in of_xs], [by_consts[k] for k in of_consts]
    made = attrs.evolve(program, step=step, carry=program.carry + len(first), xs=program.xs + len(rows), traced=None)
    return Forward(made, [*carry, *first, *xs, *rows, *consts, *shared])
