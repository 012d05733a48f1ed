"""Gradients of pure functions over trees."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from functrain import tree
from functrain.engine.interpreters import is_plain, is_transformed
from functrain.engine.tracer import is_recorded
from functrain.errors import NotATensor, ShapeMismatch


def value_and_grad(f: Callable, argnum: int = 0, has_aux: bool = False) -> Callable:
    """Return a function that gives the value of `f` and its gradient by one positional argument.

    Args:
        f: returns a scalar tensor; with `has_aux`, a pair of a scalar tensor and any tree beside it.
        argnum: the argument to differentiate by, a tree of floating-point tensors.
        has_aux: whether `f` returns such a pair; then the value is that pair.

    Returns:
        A function (*args) -> (value, gradients); the gradients have the structure of the argument.

    Raises:
        NotATensor: a leaf of the argument is no floating-point tensor, or the value is no tensor.
        ShapeMismatch: the value is no scalar.

    >>> value_and_grad(lambda p: (p["w"] ** 2).sum())({"w": torch.tensor([1.0, 2.0])})
    (tensor(5.), {'w': tensor([2., 4.])})
    """

    @wraps(f)
    def differentiated(*args: Any) -> tuple[Any, Any]:
        return differentiate(f, args, argnum, has_aux)

    return differentiated


def differentiate(f: Callable, args: tuple, argnum: int = 0, has_aux: bool = False) -> tuple[Any, Any]:
    """Return what `value_and_grad(f, argnum, has_aux)(*args)` returns, without making that function first.

    >>> differentiate(lambda x: x**2, (torch.tensor(3.0),))
    (tensor(9.), tensor(6.))
    """
    _check_floating(args[argnum], argnum)
    if (is_plain() or is_recorded()) and not is_transformed() and not _on_tape(args):
        return _by_autograd(f, argnum, has_aux, args)
    return _by_func(f, argnum, has_aux, args)


def grad(f: Callable, argnum: int = 0, has_aux: bool = False) -> Callable:
    """Return a function that gives the gradient of `f`; with `has_aux`, a pair (gradient, aux).

    See `value_and_grad`, whose arguments it takes.

    >>> grad(lambda x: x**3)(torch.tensor(2.0))
    tensor(12.)
    """
    both = value_and_grad(f, argnum, has_aux)

    @wraps(f)
    def gradient(*args: Any) -> Any:
        value, gradients = both(*args)
        return (gradients, value[1]) if has_aux else gradients

    return gradient


def _differentiable(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())


def _check_floating(argument: Any, argnum: int) -> None:
    if tree.all(_differentiable, argument):
        return
    for path, leaf in tree.leaves_with_path(argument):
        if not _differentiable(leaf):
            where = f" at {path}" if path else ""
            raise NotATensor(
                f"argument {argnum}{where}: gradients need floating-point tensors, got {tree.describe(leaf)}; "
                "keep counters and indices in the buffers"
            )


def _check_scalar(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise NotATensor(f"the function must return a scalar tensor, got {type(value).__name__}")
    if value.shape != ():
        got = tuple(value.shape)
        raise ShapeMismatch(f"the function must return a scalar tensor, got shape {got}; reduce it first")
    return value


def _on_tape(args: Any) -> bool:
    if not torch.is_grad_enabled():
        return False
    return any(isinstance(x, Tensor) and x.requires_grad for arg in args for x in tree.leaves(arg))


def _by_autograd(f: Callable, argnum: int, has_aux: bool, args: tuple) -> tuple[Any, Any]:
    # Half the overhead of torch.func.grad, which wraps every tensor; the same gradients.
    variables = tree.map(lambda leaf: leaf.detach().requires_grad_(), args[argnum])
    leaves = tree.leaves(variables)
    with torch.enable_grad():
        result = f(*args[:argnum], variables, *args[argnum + 1 :])
        value, aux = result if has_aux else (result, None)
        _check_scalar(value)
    found = iter(torch.autograd.grad(value, leaves, allow_unused=True) if leaves and value.requires_grad else ())
    gradients = tree.map(lambda leaf: _or_zeros(next(found, None), leaf), variables)
    value = value.detach()
    return (value, _detach(aux)) if has_aux else value, gradients


def _or_zeros(gradient: Tensor | None, leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf, requires_grad=False) if gradient is None else gradient


def _detach(aux: Any) -> Any:
    return tree.map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, aux)


def _by_func(f: Callable, argnum: int, has_aux: bool, args: tuple) -> tuple[Any, Any]:
    def checked(*args):
        result = f(*args)
        _check_scalar(result[0] if has_aux else result)
        return result

    gradients, value = torch.func.grad_and_value(checked, argnums=argnum, has_aux=has_aux)(*args)
    return value, gradients
