"""Laws of any function: that it is pure, and the same compiled and vmapped."""

import random as python_random
import sys
from collections.abc import Callable
from typing import Any

import torch

from functrain import tree
from functrain.engine import check, vmap
from functrain.errors import EagerAndCompiledDiffer, LawBroken
from functrain.testing.laws import break_law, same


def check_pure(f: Callable, *args: Any) -> Any:
    """Call a function twice, and return its result if it is pure.

    Pure: it changes no argument, gives the same bits for the same arguments, and draws from no global generator.

    Args:
        f: the function.
        args: what to call it with, trees of tensors and data.

    Raises:
        LawBroken: it is not pure; the message says how.

    >>> check_pure(lambda x: x + 1, torch.ones(2))
    tensor([2., 2.])
    >>> check_pure(lambda p: p["w"].add_(1), {"w": torch.ones(2)})
    Traceback (most recent call last):
        ...
    functrain.errors.LawBroken: argument 0 before and after the call differ:
      w at [0]: 1.0 against 2.0 (2 of 2 differ)
    """
    before, generators = tree.clone(args), _generators()
    first = f(*args)
    kept = tree.clone(first)  # a second call may write into what the first returned
    for number, (old, new) in enumerate(zip(before, args, strict=True)):
        same(old, new, f"argument {number} before and after the call")
    if generators != _generators():
        break_law("it draws from a global generator; draw with functrain.random from a key that is an argument")
    same(kept, f(*args), "the results of two calls with the same arguments")
    same(kept, first, "the result of the first call before and after the second")
    return first


def _generators() -> list[Any]:
    states: list[Any] = [torch.random.get_rng_state().tolist(), python_random.getstate()]
    numpy = sys.modules.get("numpy")
    return states if numpy is None else [*states, repr(numpy.random.get_state())]


def check_jit(f: Callable, *args: Any, rtol: float = 1e-4, atol: float = 1e-6) -> None:
    """Check that a function gives the same eager and compiled, results and gradients.

    Args:
        f: a pure function of trees.
        args: what to call it with.
        rtol: the relative difference allowed.
        atol: the absolute difference allowed.

    Raises:
        LawBroken: they differ; the message lists where, by dotted path.

    >>> check_jit(torch.sin, torch.ones(2))
    """
    try:
        check(f, *args, rtol=rtol, atol=atol)
    except EagerAndCompiledDiffer as error:
        raise LawBroken(str(error)) from error


def check_vmap(f: Callable, *args: Any, rtol: float = 1e-4, atol: float = 1e-6) -> None:
    """Check that a function vmapped over the first axis of all its arguments gives the same as a loop.

    Args:
        f: a pure function of trees of tensors.
        args: trees of tensors whose first axes are equally long.
        rtol: the relative difference allowed.
        atol: the absolute difference allowed.

    Raises:
        LawBroken: they differ; the message lists where, by dotted path.

    >>> check_vmap(torch.sum, torch.ones(3, 2))
    """
    count = len(tree.leaves(args)[0])
    looped = tree.stack([f(*tree.map(lambda leaf, i=i: leaf[i], args)) for i in range(count)])
    same(looped, vmap(f)(*args), "a loop and vmap", rtol, atol)
