"""Random pure programs give the same numbers compiled as eagerly, and nothing but what was donated changes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import functrain as ft
from tests.engine.programs import Program, generated, made, run, shrunk

CALLS = 3  # the first call of a signature, and later ones, take different paths
BLOCK = 60


def fault(program: Program) -> str | None:
    """Return in what the compiled program differs from the eager one, or None."""
    inputs = made(program)
    try:
        want = run(program, inputs)
    except (RuntimeError, IndexError, ValueError, TypeError):
        return None  # what was left out made it impossible
    if _changed(inputs, program, frozenset()):
        return None
    closed, compiled = _compiled(program)
    try:
        return next(filter(None, (_fault_of_call(program, closed, compiled, inputs, want) for _ in range(CALLS))), None)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _compiled(program: Program) -> tuple[dict[int, Tensor], Callable]:
    """Return the tensors that the program closes over, and the program as a compiled function of its arguments."""
    inputs = made(program)
    closed = {k: inputs[k] for k in program.closed}
    passed = [k for k in range(len(inputs)) if k not in closed]

    def f(*args: Tensor) -> list[Tensor]:
        values = {**closed, **dict(zip(passed, args, strict=True))}
        return run(program, [values[k] for k in range(len(inputs))])

    return closed, ft.jit(f, donate=[passed.index(k) for k in program.donated])


def _fault_of_call(program: Program, closed: Any, compiled: Callable, before: Any, want: Any) -> str | None:
    inputs = [closed.get(k, t) for k, t in enumerate(made(program))]
    got = compiled(*(t for k, t in enumerate(inputs) if k not in closed))
    for k, (a, b) in enumerate(zip(want, got, strict=True)):
        if (a.dtype, a.shape) != (b.dtype, b.shape) or not torch.equal(a, b):
            return f"result {k} is {b}, eagerly {a}"
        # What was donated is copied where it is returned as a view.
        if not program.donated and _strides(a) != _strides(b):
            return f"result {k} has strides {b.stride()}, eagerly {a.stride()}"
    changed = _changed(inputs, program, program.donated)
    return f"input {changed[0]} is changed" if changed else _shared(program, (before, want), (inputs, got))


def _strides(x: Tensor) -> list[int]:
    return [s for s, n in zip(x.stride(), x.shape, strict=True) if n > 1 and x.numel()]


def _changed(inputs: list[Tensor], program: Program, but: frozenset[int]) -> list[int]:
    pairs = enumerate(zip(inputs, made(program), strict=True))
    return [k for k, (now, then) in pairs if k not in but and not torch.equal(now, then)]


def _shared(program: Program, eager: Any, compiled: Any) -> str | None:
    """Return which memory is shared that is not shared eagerly: with an input that is still usable, or a result."""
    more = _sharing(program, *compiled) - _sharing(program, *eager)
    return f"these share memory, and do not eagerly: {sorted(more)}" if more else None


def _sharing(program: Program, inputs: list[Tensor], results: list[Tensor]) -> set[tuple[str, str]]:
    named = {f"input {k}": t for k, t in enumerate(inputs) if k not in program.donated}
    named |= {f"result {k}": t for k, t in enumerate(results) if t.numel()}
    memory = {name: t.untyped_storage()._cdata for name, t in named.items()}
    return {(a, b) for a in memory for b in memory if a < b and memory[a] == memory[b]}


@pytest.mark.parametrize("block", range(20))
def test_generated_programs_are_the_same_compiled(block: int) -> None:
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        program = generated(seed)
        if fault(program) is not None:
            small = shrunk(program, lambda candidate: fault(candidate) is not None)
            pytest.fail(f"seed {seed}: {fault(small)}\n{small}")


def test_a_wrong_program_is_found_and_shrunk() -> None:
    def reads_a_sign(program: Program) -> bool:
        return any(step.name == "sign" for step in program.steps)

    program = next(filter(reads_a_sign, map(generated, range(100))))
    assert len(shrunk(program, reads_a_sign).results) == 1
