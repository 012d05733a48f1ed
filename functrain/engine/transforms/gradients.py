"""Gradients of pure functions over trees."""

import threading
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any, ParamSpec

import torch
from torch import Tensor
from torch.autograd import Variable

from functrain import tree
from functrain.dispatch_state import is_differentiated_by_hand, is_plain, is_transformed
from functrain.engine.tracing.recording import is_recorded
from functrain.engine.transforms.closing import all_passed_on
from functrain.engine.transforms.returned import Returning, pair
from functrain.errors import DtypeMismatch, InvalidArgument, NotATensor, ShapeMismatch

P = ParamSpec("P")

run_backward = Variable._execution_engine.run_backward  # pyright: ignore


def value_and_grad(f: Callable[P, Any], argnum: int = 0, has_aux: bool = False) -> Callable[P, tuple[Any, Any]]:
    """Return a function that gives the value of `f` and its gradient by one positional argument.

    Args:
        f: returns a scalar tensor; with `has_aux`, a pair of a scalar tensor and any tree beside it.
        argnum: the argument to differentiate by, a tree of floating-point tensors.
        has_aux: whether `f` returns such a pair; then the value is that pair.

    Returns:
        A function (*args, **kwargs) -> (value, gradients); the gradients have the structure of the argument. Keyword
        arguments are passed on to `f`, which is not differentiated by them.

    Raises:
        NotATensor: a leaf of the argument is no floating-point tensor, or the value is no tensor.
        ShapeMismatch: the value is no scalar.
        DtypeMismatch: it is no floating-point number.
        InvalidArgument: `argnum` names no argument by position; or with `has_aux` the function returns no pair.

    >>> value_and_grad(lambda p: (p["w"] ** 2).sum())({"w": torch.tensor([1.0, 2.0])})
    (tensor(5.), {'w': tensor([2., 4.])})
    """

    @wraps(f)
    def differentiated(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return differentiate(with_keywords(f, kwargs), args, argnum, has_aux)

    return differentiated  # pyright: ignore[reportReturnType]


def with_keywords(f: Callable, kwargs: dict[str, Any]) -> Callable:
    """Return a function of the positional arguments alone, where there are others.

    >>> with_keywords(lambda x, by: x * by, {"by": 3})(2)
    6
    """
    return partial(f, **all_passed_on(kwargs)) if kwargs else f


def differentiate(f: Callable, args: tuple, argnum: int = 0, has_aux: bool = False) -> tuple[Any, Any]:
    """Return what `value_and_grad(f, argnum, has_aux)(*args)` returns, without making that function first.

    >>> differentiate(lambda x: x**2, (torch.tensor(3.0),))
    (tensor(9.), tensor(6.))
    """
    args, argnum = all_passed_on(args), _position(argnum, len(args))
    if _by_plain_autograd() and not is_taped(tree.leaves(args)):
        return by_autograd(f, argnum, has_aux, args)
    _check_floating(args[argnum], argnum)
    return by_func(f, argnum, has_aux, args)


def pull_back(f: Callable[[Any], tuple[Tensor, Tensor | float, Any]], x: Any) -> tuple[Any, Any]:
    """Return (aux, the gradient by x of sum(weight * value)), where f(x) is (value, weight, aux).

    What is linear in values needs no place in the graph: the backward pass begins at the values with these weights. A
    number is the weight of each value.

    >>> pull_back(lambda x: (x**2, torch.tensor([1.0, 0.5]), "aux"), torch.tensor([3.0, 4.0]))
    ('aux', tensor([6., 4.]))
    """
    x = all_passed_on(x)
    if _by_plain_autograd() and not is_taped(leaves := tree.leaves(x)):
        return _pull_back(f, x, leaves, 0)
    _check_floating(x, 0)

    def valued(x: Any) -> tuple[Tensor, tuple[Tensor, Any]]:
        value, weight, aux = f(x)
        return value, (weight if isinstance(weight, Tensor) else torch.full_like(value, weight), aux)

    pulled: Any = torch.func.vjp(valued, x, has_aux=True)
    _, pull, (weight, aux) = pulled
    return aux, pull(weight)[0]


def grad(f: Callable[P, Any], argnum: int = 0, has_aux: bool = False) -> Callable[P, Any]:
    """Return a function that gives the gradient of `f`; with `has_aux`, a pair (gradient, aux).

    See `value_and_grad`, whose arguments it takes.

    >>> grad(lambda x: x**3)(torch.tensor(2.0))
    tensor(12.)
    """
    both = value_and_grad(f, argnum, has_aux)

    @wraps(f)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, gradients = both(*args, **kwargs)  # pyright: ignore[reportCallIssue]
        return (gradients, value[1]) if has_aux else gradients

    return gradient  # pyright: ignore[reportReturnType]


def _differentiable(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())


def _position(argnum: Any, count: int) -> int:
    if isinstance(argnum, bool) or not isinstance(argnum, int) or not -count <= argnum < count:
        more = "" if count else "; what is differentiated is passed by position, not by name"
        raise InvalidArgument(f"argnum must be the position of one of the {count} arguments, got {argnum!r}{more}")
    return argnum % count


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
    if value.is_complex():
        raise DtypeMismatch("the function must return a real number, got a complex one; take its abs() or real part")
    if not value.is_floating_point():
        got = tree.describe(value)
        raise DtypeMismatch(f"the function must return a floating-point number, got {got}, which has no gradient")
    return value


def _by_plain_autograd() -> bool:
    if torch.is_inference_mode_enabled():  # each gradient would be zero without a word
        raise InvalidArgument(
            "gradients cannot be computed inside torch.inference_mode(), which switches off what they are made from; "
            "leave it, or use torch.no_grad(), inside which they can"
        )
    # A gradient within another is part of what that differentiates, also by what the function closes over.
    return not _within.depth and (
        is_plain() or (is_recorded() and not is_transformed() and not is_differentiated_by_hand())
    )


class _Within(threading.local):
    """How many functions are being differentiated by plain autograd around the running code."""

    depth = 0


_within = _Within()


def is_taped(leaves: list[Any]) -> bool:
    """Return whether PyTorch's autograd records what is done with some of these.

    >>> is_taped([torch.ones(2), 1]), is_taped([torch.ones(2, requires_grad=True)])
    (False, True)
    """
    return torch.is_grad_enabled() and True in [leaf.requires_grad for leaf in leaves if isinstance(leaf, Tensor)]


def by_autograd(f: Callable, argnum: int, has_aux: bool, args: tuple) -> tuple[Any, Any]:
    """Return value and gradient by PyTorch's autograd, where nothing else transforms the function."""

    # Half the overhead of torch.func.grad, which wraps every tensor; the same gradients.
    def valued(variables: Any) -> tuple[Tensor, float, Any]:
        result = f(*args[:argnum], variables, *args[argnum + 1 :])
        value = _check_scalar(pair(result, "grad")[0] if has_aux else result)
        return value, 1.0, result

    return _pull_back(valued, args[argnum], tree.leaves(args[argnum]), argnum)


def _pull_back(f: Callable, x: Any, leaves: list[Any], argnum: int) -> tuple[Any, Any]:
    # This runs at each eager step, where a context that changes nothing takes longer than a small layer.
    try:
        variables = [leaf.detach().requires_grad_() for leaf in leaves]
    except (AttributeError, RuntimeError):
        _check_floating(x, argnum)
        raise
    replaced = _replace(x, iter(variables))
    _within.depth += 1
    try:
        if torch.is_grad_enabled():
            value, weight, aux = f(replaced)
        else:
            with torch.enable_grad():
                value, weight, aux = f(replaced)
    finally:
        _within.depth -= 1
    return tree.map(_detach, aux), _replace(x, iter(_backward(value, weight, variables)))


def _replace(like: Any, leaves: Iterator[Tensor]) -> Any:
    if type(like) is dict:  # parameters are nested dicts: this path is several times faster
        return {k: next(leaves) if type(v) is Tensor else _replace(v, leaves) for k, v in like.items()}
    return tree.map(lambda _leaf: next(leaves), like)


def _backward(value: Tensor, weight: Tensor | float, variables: list[Tensor]) -> list[Tensor]:
    if not (variables and value.requires_grad):
        return [torch.zeros_like(leaf) for leaf in variables]
    # Made anew each time: where the function hands its argument on, the weights themselves come back as the gradient.
    weight = weight.detach() if isinstance(weight, Tensor) else torch.full_like(value, weight, requires_grad=False)
    if is_recorded():
        with torch.autograd.set_multithreading_enabled(False):  # whatever the device, this thread is what is traced
            grads = _run(value, weight, variables)
    else:
        grads = _run(value, weight, variables)
    return [torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(grads, variables, strict=True)]


def _run(value: Tensor, weight: Tensor, variables: list[Tensor]) -> tuple[Tensor | None, ...]:
    # What torch.autograd.grad calls once it has looked at its arguments, which takes longer than a small layer.
    return run_backward((value,), (weight,), False, False, tuple(variables), True, accumulate_grad=False)


def _detach(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def by_func(f: Callable, argnum: int, has_aux: bool, args: tuple) -> tuple[Any, Any]:
    """Return value and gradient by `torch.func`, under any other transforms."""

    def checked(*args):
        result = f(*args)
        _check_scalar(pair(result, "grad")[0] if has_aux else result)
        return result

    returning = Returning(checked, "grad", has_aux)
    gradients, value = torch.func.grad_and_value(returning, argnums=argnum, has_aux=has_aux)(*args)
    return (value[0], returning.aux(value[1])) if has_aux else value, gradients
