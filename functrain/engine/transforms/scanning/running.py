"""A scan inside a trace, under whatever transforms: each transform makes a program of a program, the trace a loop.

`run` calls an `autograd.Function` with the program. PyTorch hands that from transform to transform, from the innermost
to the outermost: `vmap` calls `run` again with the vmapped program, what differentiates calls it again in its backward
pass with the loop back. So no rule needs to know what is around it.
"""

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.dispatch_contexts import outside_of_transforms, unseen
from functrain.dispatch_state import (
    alive,
    current_level,
    differentiating_levels,
    forward_levels,
    is_differentiated_besides,
    layers,
    vectorizing_levels,
)
from functrain.engine.transforms.closing import pass_on
from functrain.engine.transforms.scanning.chunked import in_chunks, is_long
from functrain.engine.transforms.scanning.differentiated import Back, back_by_recomputing, with_history
from functrain.engine.transforms.scanning.forward_mode import with_tangents
from functrain.engine.transforms.scanning.joint import Joint, joint
from functrain.engine.transforms.scanning.products import multiply
from functrain.engine.transforms.scanning.program import Program, Tensors, enter, is_float, record
from functrain.engine.transforms.scanning.replayed import step_of
from functrain.engine.transforms.scanning.vectorized import vectorize
from functrain.errors import InvalidArgument


def run(program: Program, tensors: Sequence[Tensor]) -> Tensors:
    """Return the carry and the ys of a scan that a trace records.

    Args:
        program: the scan.
        tensors: its carry, xs and consts, flat.
    """
    tensors = [alive(t) for t in pass_on(tensors)]
    levels, batches = differentiating_levels(tensors), vectorizing_levels(tensors)
    if not (levels or batches or any(len(list(layers(t))) > 1 for t in tensors)):
        with outside_of_transforms():
            return record(program, tensors)
    here = {n for n in levels if n > max(batches, default=-1)}
    if here <= forward_levels():
        return list(_Scan.apply(_Plain(program), *tensors))
    if program.length is None:
        raise InvalidArgument(
            f"a gradient inside jit goes back through {program.name} step by step, so it needs a bound: pass "
            "max_steps, or differentiate forward with jvp or jacfwd"
        )
    if is_long(program):
        return in_chunks(run, program, tensors)
    needed = [any(map(_asks, layers(t))) for t in tensors]
    once = levels == here and len(levels) == 1 and not batches and not levels & forward_levels()
    plan: Any = _Joint(program, needed) if once and not program.recomputes else _Recomputing(program, needed)
    return list(_Scan.apply(plan, *tensors)[: plan.visible])


def _asks(tensor: Tensor) -> bool:
    return tensor.requires_grad


@attrs.define(eq=False)
class _Plain:
    """A scan that nothing differentiates before a `vmap` makes another of it."""

    program: Program
    visible: int = 0

    def record(self, tensors: Tensors) -> Tensors:
        return record(self.program, tensors)


@attrs.define(eq=False)
class _Recomputing:
    """A scan whose loop puts out what each step began with.

    Attributes:
        of: the scan that is differentiated.
        needed: of which of its tensors gradients are wanted.
        visible: the number of its results.
        program: the scan with what is put out besides.
    """

    of: Program
    needed: list[bool]
    visible: int = 0
    program: Program = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.program = with_history(self.of)

    def record(self, tensors: Tensors) -> Tensors:
        return record(self.program, tensors)

    def back(self, xs: Tensors, consts: Tensors, kept: Tensors, cotangents: Sequence[Tensor | None]) -> Back:
        # What is put out besides may be differentiated too, by a transform further out.
        return back_by_recomputing(self.program, kept, xs, consts, cotangents, self.needed)


@attrs.define(eq=False)
class _Joint:
    """A scan that is differentiated once, whose loop puts out what the loop back reads.

    Attributes:
        program: the scan.
        needed: of which of its tensors gradients are wanted.
        visible: the number of its results.
        cut: its step, cut in two when it is recorded.
    """

    program: Program
    needed: list[bool]
    visible: int = 0
    cut: Joint | None = None

    def record(self, tensors: Tensors) -> Tensors:
        self.cut = joint(self.program, tensors, self.needed)
        self.visible = self.program.carry + self.cut.ys
        with unseen():
            return enter(self.program, self.cut.forward, tensors)

    def back(self, xs: Tensors, consts: Tensors, kept: Tensors, cotangents: Sequence[Tensor | None]) -> Back:
        cut, p = self.cut, self.program
        assert cut is not None
        length: Any = p.length
        made, stored = list(kept[: p.stops]) or xs[: p.skips], list(kept[p.stops :])
        incoming = [_or_zeros(cotangents[k], cut.forward.examples[k], ()) for k in cut.carry]
        incoming += [torch.zeros_like(consts[k]) for k in cut.consts]
        rows = [_or_zeros(cotangents[p.carry + k], cut.forward.ys[k], (length,)) for k in cut.of_ys]
        rows = [*made, *rows, *stored, *(xs[k] for k in cut.read)]
        back = Program(
            step_of(cut.back, len(incoming), run),
            carry=len(incoming),
            xs=len(rows),
            length=length,
            reverse=not p.reverse,
            skips=bool(made),
            masked=p.masked,
            traced=cut.back,
            name=p.name,
        )
        return Back(back, [*incoming, *rows, *consts], cut.carry, cut.consts, cut.xs, cut.later)


def _or_zeros(cotangent: Tensor | None, like: Tensor, more: tuple[int, ...]) -> Tensor:
    if cotangent is not None:
        return cotangent
    return torch.zeros((*more, *like.shape), dtype=like.dtype, device=like.device)


def _gradients(back: Back, program: Program, made: Tensors) -> dict[int, Tensor]:
    """Return the gradients that a loop back has made, by the position of their tensors."""
    consts = program.carry + program.xs
    places = [*back.carry, *(consts + k for k in back.consts), *(program.carry + k for k in back.xs)]
    columns, further = back.tensors[back.program.carry :], made[len(places) :]
    gradients = dict(zip(places, made, strict=False))
    for k, left, right, is_transposed in back.later:
        a, b = (columns[n] if n >= 0 else further[-1 - n] for n in (left, right))
        gradients[consts + k] = multiply(a, b, is_transposed)
    return gradients


class _Scan(torch.autograd.Function):
    """(plan, *tensors) -> the carry and the ys, and what the plan puts out besides."""

    @staticmethod
    def forward(plan: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(plan.record(list(tensors)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        ctx.plan, *tensors = inputs
        plan = ctx.plan
        if isinstance(plan, _Recomputing):
            plan.visible = len(output) - plan.of.carry
        ctx.level = current_level()
        ctx.floats = [is_float(t) for t in output]
        ctx.mark_non_differentiable(*[t for t in output if not is_float(t)])
        ctx.set_materialize_grads(False)
        if not isinstance(plan, _Plain):
            ctx.save_for_backward(*tensors[plan.program.carry :], *output[plan.visible :])
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple:
        plan, p = ctx.plan, ctx.plan.program
        count = len(ctx.needs_input_grad) - 1
        if all(c is None for c in cotangents):
            return (None,) * (count + 1)
        saved = ctx.saved_tensors
        _, xs, consts = p.cut([*([None] * p.carry), *saved[: count - p.carry]])
        kept = list(saved[count - p.carry :])
        present = [c for c in cotangents if c is not None]
        with torch.set_grad_enabled(is_differentiated_besides([*saved, *present], ctx.level)):
            back = plan.back(xs, consts, kept, cotangents)
            gradients = _gradients(back, p, run(back.program, back.tensors))
        return None, *(gradients.get(k) for k in range(count))

    @staticmethod
    def jvp(ctx: Any, _plan: None, *tangents: Tensor | None) -> tuple:  # pyright: ignore
        forward = with_tangents(ctx.plan.program, ctx.saved_tensors, tangents)
        results = iter(run(forward.program, forward.tensors)[ctx.plan.program.carry :])
        return tuple(next(results) if wanted else None for wanted in ctx.floats)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, plan: Any, *tensors: Tensor) -> tuple:  # pyright: ignore
        mapped = vectorize(plan.program, tensors, in_dims[1:], info.batch_size, info.randomness)
        return tuple(run(mapped.program, mapped.tensors)), mapped.out
