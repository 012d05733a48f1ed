"""`check`: whether a function gives the same compiled as eager, outputs and gradients."""

import time
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import tree
from functrain.engine.calling.jitting import jit
from functrain.engine.transforms.gradients import grad
from functrain.errors import EagerAndCompiledDiffer
from functrain.records import reprs


@attrs.frozen(repr=False)
class Report:
    """What `check` compared.

    Attributes:
        outputs: dotted path of each output -> the largest absolute difference.
        gradients: dotted path of each floating-point argument -> the largest absolute difference of its gradient.
        seconds: how long the compiled function took to be ready.
    """

    outputs: dict[str, float]
    gradients: dict[str, float]
    seconds: float

    __repr__ = reprs.record


def check(f: Callable, *args: Any, backend: str = "aten", rtol: float = 1e-4, atol: float = 1e-6) -> Report:
    """Run a function eager, as it was recorded, and compiled, and compare every output and every gradient.

    What was recorded must give the same bits as eager; where it does not, `f` is not pure or was traced wrongly.

    The gradients are those of the sum of all floating-point outputs, by every floating-point tensor of the arguments.

    Args:
        f: a pure function of trees.
        args: what to call it with; nothing is donated.
        backend: as in `jit`.
        rtol: the relative difference allowed.
        atol: the absolute difference allowed.

    Returns:
        The largest difference of each output and gradient.

    Raises:
        EagerAndCompiledDiffer: they differ; the message lists where, by dotted path, with both values.

    >>> check(lambda p: {"y": p["w"] ** 2}, {"w": torch.ones(3)}).gradients
    {'0.w': 0.0}
    """
    began = time.perf_counter()
    eager_result = f(*args)
    _check_recorded("output", eager_result, jit(f, backend="replay")(*args))
    result = jit(f, backend=backend)(*args)
    outputs = _compare("output", eager_result, result, rtol, atol)
    inputs = [leaf for leaf in tree.leaves(args) if _differentiable(leaf)]
    total = _total(f, args)
    gradients: dict[str, float] = {}
    if inputs and any(_differentiable(leaf) for leaf in tree.leaves(eager_result)):
        by = grad(total)
        names = [path for path, leaf in tree.leaves_with_path(args) if _differentiable(leaf)]
        ways = (by, jit(by, backend="replay"), jit(by, backend=backend))
        plain, recorded, fast = (dict(zip(names, g(inputs), strict=True)) for g in ways)
        _check_recorded("gradient by argument", plain, recorded)
        gradients = _compare("gradient by argument", plain, fast, rtol, atol)
    return Report(outputs, gradients, time.perf_counter() - began)


def _differentiable(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def _total(f: Callable, args: tuple) -> Callable[[list[Tensor]], Tensor]:
    leaves, spec = tree.flatten(args)

    def total(inputs: list[Tensor]) -> Tensor:
        remaining = iter(inputs)
        filled = [next(remaining) if _differentiable(leaf) else leaf for leaf in leaves]
        results = [y for y in tree.leaves(f(*tree.unflatten(spec, filled))) if _differentiable(y)]
        return torch.stack([y.sum().double() for y in results]).sum()

    return total


def _check_recorded(what: str, eager: Any, recorded: Any) -> None:
    """Raise where the recorded graph, run as it was recorded, does not give what the function gives, to the bit."""
    lines = tree.differences(eager, recorded)
    if lines:
        shown = "\n".join(f"  {what} {line}" for line in lines)
        raise EagerAndCompiledDiffer(f"eager against what was recorded, so the fault is one of tracing:\n{shown}")


def _compare(what: str, eager: Any, compiled: Any, rtol: float, atol: float) -> dict[str, float]:
    lines = tree.differences(eager, compiled, rtol=rtol, atol=atol)
    if lines:
        shown = "\n".join(f"  {what} {line}" for line in lines)
        raise EagerAndCompiledDiffer(f"eager against compiled (what was recorded is right):\n{shown}")
    pairs = zip(tree.leaves_with_path(eager), tree.leaves(compiled), strict=True)
    return {path: _distance(a, b) for (path, a), b in pairs if isinstance(a, Tensor)}


def _distance(a: Tensor, b: Tensor) -> float:
    return 0.0 if a.numel() == 0 or torch.equal(a, b) else float((a.double() - b.double()).abs().nan_to_num().max())
