"""Choices and loops that depend on values: Python's where nothing is traced, nodes of the graph where something is."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functrain import arguments, tree
from functrain.dispatch_state import innermost, vectorizing_levels
from functrain.engine.transforms.scanning.discovering import can_be_asked, discover
from functrain.engine.transforms.scanning.masking import without_asking
from functrain.engine.transforms.scanning.program import Program, Tensors, never
from functrain.engine.transforms.scanning.running import run
from functrain.engine.transforms.scanning.scans import is_recorded_as_loop
from functrain.engine.transforms.scanning.steps import check_carry, outputs_of
from functrain.errors import NotATensor, ShapeMismatch, TreeMismatch


def cond(pred: Tensor | bool, true_fun: Callable, false_fun: Callable, *operands: Any) -> Any:
    """Return `true_fun(*operands)` where a condition is true, and `false_fun(*operands)` where it is not.

    Inside `jit` both are traced and one of them runs. A gradient goes through that one alone. Under `vmap` over the
    condition, and inside `jit` on another device than the CPU, both run, and what is not wanted is ignored.

    Args:
        pred: a bool, or a boolean scalar tensor.
        true_fun: a function of the operands that returns a tree of tensors.
        false_fun: another one, whose result has the same structure, shapes, dtypes and devices.
        operands: trees.

    Raises:
        NotATensor: the condition is no bool and no boolean tensor.
        ShapeMismatch: the condition is no scalar.
        TreeMismatch: the functions return different structures, shapes, dtypes or devices (noticed where both run).

    >>> cond(torch.tensor(True), torch.sin, torch.cos, torch.tensor(0.0))
    tensor(0.)
    """
    if isinstance(pred, bool):
        return (true_fun if pred else false_fun)(*operands)
    _check_condition("cond", pred)
    if is_recorded_as_loop():
        return _record_choice(pred, true_fun, false_fun, operands)
    if not vectorizing_levels([pred]):
        return (true_fun if bool(innermost(pred)) else false_fun)(*operands)
    a, b = true_fun(*operands), false_fun(*operands)
    _check_branches(a, b)
    return tree.map(lambda x, y: torch.where(pred, x, y), a, b)


def _check_condition(name: str, pred: Any) -> None:
    if not isinstance(pred, Tensor) or pred.dtype is not torch.bool:
        raise NotATensor(f"{name}: the condition must be a bool or a boolean tensor, got {tree.describe(pred)}")
    if pred.shape != ():
        raise ShapeMismatch(
            f"{name}: the condition must be a scalar, got shape {tuple(pred.shape)}; reduce it with all or any"
        )


def _check_branches(a: Any, b: Any) -> None:
    first, second = dict(tree.leaves_with_path(a)), dict(tree.leaves_with_path(b))
    lines = []
    for path in [*first, *(p for p in second if p not in first)]:
        x, y = (tree.describe(t[path]) if path in t else "nothing" for t in (first, second))
        if x != y:
            lines.append(f"  {path or 'the result'}: {x} where it is true, {y} where it is false")
    if not lines and tree.structure(a) != tree.structure(b):
        lines = [f"  the branches: {tree.structure(a)} where it is true, {tree.structure(b)} where it is false"]
    if lines:
        raise TreeMismatch("\n".join(["both functions of cond must return the same structure, but:", *lines[:10]]))


def _record_choice(pred: Tensor, true_fun: Callable, false_fun: Callable, operands: tuple) -> Any:
    """Return the choice of a trace: two loops of one step each, of which the condition skips one."""
    results: dict[Callable, Any] = {}
    chosen = [_if(p, f, operands, results) for p, f in ((pred, true_fun), (~pred, false_fun))]
    _check_branches(results[true_fun], results[false_fun])
    _, spec = outputs_of(results[true_fun])
    made = [torch.where(pred, a, b) for a, b in zip(*chosen, strict=True)]
    return None if spec is None else tree.unflatten(spec, made)


def _if(pred: Tensor, f: Callable, operands: tuple, results: dict[Callable, Any]) -> Tensors:
    """Return the leaves of what a function returns, zeros where it is not to run."""

    def call(carry: Tensors, row: Tensors) -> tuple[Tensors, Tensors]:
        made = f(*operands)
        results.setdefault(f, made)
        return [], outputs_of(made)[0]

    first = Program(never, carry=0, xs=1, length=1, skips=True, name=getattr(f, "__name__", "a function of cond"))
    program, closed = discover(call, first, [pred[None]], [])
    program = program if can_be_asked([pred]) else without_asking(program)
    return [y[0] for y in run(program, [pred[None], *closed])]


def while_loop(cond_fun: Callable, body_fun: Callable, init_val: Any, max_steps: int | None = None) -> Any:
    """Return `init_val` changed by `body_fun` as long as `cond_fun` is true of it.

    Inside `jit` it is one loop, which stops where the condition says so. Under `vmap` it goes on until all rows are at
    their end, and rows that are keep their value.

    Args:
        cond_fun: value -> a bool, or a boolean scalar tensor.
        body_fun: value -> the next value, of the same structure, shapes, dtypes and devices.
        init_val: a tree of tensors.
        max_steps: the most steps: the loop ends there whatever the condition says. Needed for gradients inside `jit`
            (reverse mode), which keep something of each step; `jvp` works without.

    Raises:
        InvalidArgument: `max_steps` is no whole number; or a gradient is taken inside `jit` and it is missing.
        NotATensor: something in the value is no tensor, or the condition is no bool.
        ShapeMismatch: the condition is no scalar.
        TreeMismatch: a step changed the structure, shape, dtype or device of the value.

    >>> while_loop(lambda x: x < 100, lambda x: x * 2, torch.tensor(1))
    tensor(128)
    """
    if max_steps is not None:
        arguments.whole("max_steps", max_steps, 0)
    tree.check_tensors(init_val, "the value of while_loop")
    if is_recorded_as_loop() and max_steps != 0:
        return _record_while(cond_fun, body_fun, init_val, max_steps)
    return _plain_while(cond_fun, body_fun, init_val, max_steps)


def _plain_while(cond_fun: Callable, body_fun: Callable, value: Any, max_steps: int | None) -> Any:
    live, steps = _goes_on(cond_fun, value), 0
    while (max_steps is None or steps < max_steps) and bool(innermost(live).any()):
        after = body_fun(value)
        check_carry(value, after, "while_loop")
        if vectorizing_levels([live]):
            after = tree.map(lambda old, new: torch.where(live, new, old), value, after)  # noqa: B023
        value, steps = after, steps + 1
        live = live & _goes_on(cond_fun, value)
    return value


def _goes_on(cond_fun: Callable, value: Any) -> Tensor:
    pred = cond_fun(value)
    if isinstance(pred, bool):
        return torch.tensor(pred)
    _check_condition("while_loop", pred)
    return pred


def _record_while(cond_fun: Callable, body_fun: Callable, value: Any, max_steps: int | None) -> Any:
    start, spec = tree.flatten(value)

    def call(carry: Tensors, row: Tensors) -> tuple[Tensors, Tensors]:
        old = tree.unflatten(spec, carry[1:])
        after = body_fun(old)
        check_carry(old, after, "while_loop")
        return [~_goes_on(cond_fun, after), *tree.leaves(after)], []

    stopped = ~_goes_on(cond_fun, value)
    names = [
        "whether the loop is at its end",
        *(f"the value of while_loop{_inside(p)}" for p, _ in tree.leaves_with_path(value)),
    ]
    first = Program(never, carry=len(start) + 1, xs=0, length=max_steps, stops=True, name="while_loop")
    program, closed = discover(call, first, [stopped, *start], names)
    program = program if can_be_asked(start) else without_asking(program)
    return tree.unflatten(spec, run(program, [stopped, *start, *closed])[1:])


def _inside(path: str) -> str:
    return f" at {path}" if path else ""
