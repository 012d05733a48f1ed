"""A scan under `vmap`: a loop whose step is vmapped."""

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.dispatch_contexts import unseen
from functrain.dispatch_state import is_batched_here
from functrain.engine.tracing.abstract_tensor import abstract
from functrain.engine.tracing.to_graph import trace
from functrain.engine.transforms.scanning.masking import mask_steps
from functrain.engine.transforms.scanning.program import Program, Tensors


@attrs.frozen
class Mapped:
    """A program over batches, and which of its tensors have a batch.

    Attributes:
        program: carry and consts have the batch first, xs and ys second.
        tensors: its tensors.
        out: for each result the axis of the batch, None for none.
    """

    program: Program
    tensors: Tensors
    out: tuple[int | None, ...]


def vectorize(
    program: Program, tensors: Sequence[Tensor], dims: Sequence[int | None], size: int, random: str
) -> Mapped:
    """Return the scan of a batch of scans.

    Args:
        program: the scan of one.
        tensors: its tensors, some with one more axis.
        dims: where that axis is, None for tensors that all share.
        size: its length.
        random: what `vmap` is to do about PyTorch's own random numbers.
    """
    carry, xs, consts = program.cut(tensors)
    end = program.carry + program.xs
    xs = [x if d is None else x.movedim(d, 1) for x, d in zip(xs, dims[program.carry : end], strict=True)]
    consts = [c if d is None else c.movedim(d, 0) for c, d in zip(consts, dims[end:], strict=True)]
    carry = [c if d is None else c.movedim(d, 0) for c, d in zip(carry, dims[: program.carry], strict=True)]
    batched = [d is not None for d in dims]
    if (program.stops and batched[0]) or (program.skips and batched[program.carry]):
        program = mask_steps(program)
    while True:
        made, ys = _batched_results(program, [*carry, *xs, *consts], batched, size, random)
        if program.stops and made[0] and not batched[0]:
            program = mask_steps(program)
        new = [a or b for a, b in zip(batched[: program.carry], made, strict=True)]
        if new == batched[: program.carry]:
            break
        carry = [c.expand(size, *c.shape) if n and not b else c for c, n, b in zip(carry, new, batched, strict=False)]
        batched[: program.carry] = new
    mapped = attrs.evolve(program, step=_step(program, batched, ys, size, random), traced=None)
    out = (*(0 if b else None for b in new), *(1 if y else None for y in ys))
    return Mapped(mapped, [*carry, *xs, *consts], out)


def _step(program: Program, batched: list[bool], ys: list[bool], size: int, random: str) -> Any:
    n = program.carry
    dims, made_batched = tuple(0 if b else None for b in batched), [*batched[:n], *ys]

    def step(carry: Tensors, row: Tensors, consts: Tensors) -> tuple[Tensors, Tensors]:
        inputs = (*carry, *row, *consts)
        made: Tensors = []

        def one(*inputs: Tensor) -> tuple[Tensor, ...]:
            after, rows = program.step(*program.cut(inputs))
            made[:] = [*after, *rows]
            return tuple(t for t, b in zip(made, made_batched, strict=True) if b)

        # What a trace closes over besides comes after the batched inputs. What has no batch here goes past PyTorch's
        # `vmap`, which would refuse it where it has one of a `vmap` further out (2.14).
        several = iter(torch.func.vmap(one, (*dims, *(None for _ in inputs[len(dims) :])), 0, random)(*inputs))
        made = [next(several) if b else t for t, b in zip(made, made_batched, strict=True)]
        return made[:n], made[n:]

    return step


def _batched_results(
    program: Program, tensors: Tensors, batched: list[bool], size: int, random: str
) -> tuple[list[bool], list[bool]]:
    """Return which results of a step have the batch where these inputs have it."""
    seen: list[bool] = []

    def one(*inputs: Tensor) -> tuple[Tensor, ...]:
        carry, ys = program.step(*program.cut(inputs))
        seen[:] = [is_batched_here(t) for t in (*carry, *ys)]
        return (*carry, *ys)

    dims = tuple(0 if b else None for b in batched)
    carry, xs, consts = program.cut(tensors)
    with unseen():
        examples: Tensors = [*(abstract(t, t.shape) for t in (*carry, *consts))]
        examples[len(carry) : len(carry)] = [abstract(t, t.shape[1:]) for t in xs]
    trace(lambda *inputs: list(torch.func.vmap(one, dims, 0, random)(*inputs)), examples)
    return seen[: program.carry], seen[program.carry :]
