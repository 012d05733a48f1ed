"""Derivatives with JAX's names and meanings: products with vectors from either side, and whole matrices of them."""

import importlib
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache, wraps
from typing import Any

import torch
from torch import Tensor

from functrain import tree
from functrain.dispatch_state import is_differentiated_by_hand, is_plain
from functrain.engine.calling.locks import one_at_a_time
from functrain.engine.transforms.closing import all_passed_on
from functrain.engine.transforms.gradients import is_taped, with_keywords
from functrain.engine.transforms.returned import Returning
from functrain.errors import InvalidArgument, NotATensor, ShapeMismatch, TreeMismatch


def vjp(f: Callable, *primals: Any, has_aux: bool = False) -> tuple:
    """Return the value of `f` and the function that pulls cotangents of it back to its arguments.

    Args:
        f: a function of trees of floating-point tensors.
        primals: its arguments.
        has_aux: whether `f` returns a pair of its value and any tree beside it.

    Returns:
        (value, pull), with `has_aux` (value, pull, aux). `pull` takes a tree like the value and returns a tuple of one
        tree for each argument.

    Raises:
        NotATensor: a leaf of an argument or of the value is no floating-point tensor.
        InvalidArgument: with `has_aux` the function returns no pair.

    >>> value, pull = vjp(lambda x, y: x * y, torch.tensor(2.0), torch.tensor(3.0))
    >>> pull(torch.tensor(1.0))
    (tensor(3.), tensor(2.))
    """
    _check_floating("vjp", primals)
    f = Returning(f, "vjp", has_aux)
    pulled: Any = torch.func.vjp(f, *all_passed_on(primals), has_aux=has_aux)
    value, pull = pulled[:2]
    taped = not is_plain() or is_taped(tree.leaves((value, primals)))

    def pull_back(cotangents: Any) -> tuple:
        _check_alike("the cotangents", value, cotangents)
        # What comes back depends on nothing else, but PyTorch 2.14.1 leaves a history on it where `f` has a gradient
        # of batch norm inside; a state that is made of it would grow with each step.
        with nullcontext() if taped or not is_plain() or is_taped(tree.leaves(cotangents)) else torch.no_grad():
            return pull(all_passed_on(cotangents))

    return value, pull_back, *map(f.aux, pulled[2:])


def jvp(f: Callable, primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False) -> tuple:
    """Return the value of `f` and its derivative along a direction.

    Args:
        f: a function of trees of floating-point tensors.
        primals: its arguments, as a tuple or a list.
        tangents: the direction, with the structure and the shapes of the primals.
        has_aux: whether `f` returns a pair of its value and any tree beside it.

    Returns:
        (value, tangent), with `has_aux` (value, tangent, aux).

    Raises:
        InvalidArgument: primals or tangents are no tuple or list; with `has_aux` the function returns no pair; or it is
            called inside of PyTorch's `forward_ad.dual_level()`, as `hvp`, `jacfwd` and `hessian` may not be either.
        NotATensor: a leaf of an argument is no floating-point tensor, or one of the value is no tensor.
        TreeMismatch: the tangents are not like the primals.

    >>> jvp(torch.sin, (torch.tensor(0.0),), (torch.tensor(2.0),))
    (tensor(0.), tensor(2.))
    """
    primals, tangents = _as_tuples("jvp", primals, tangents)
    _begin_forward("jvp")
    f = Returning(f, "jvp", has_aux, backward=False)
    with one_at_a_time():
        pushed: Any = torch.func.jvp(f, all_passed_on(primals), all_passed_on(tangents), has_aux=has_aux)
    return *pushed[:2], *map(f.aux, pushed[2:])


def hvp(f: Callable, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple:
    """Return the product of the second derivative of a scalar function with a direction, without that matrix.

    It is the derivative of the gradient along the direction, for the price of a few gradients.

    Args:
        f: a function of trees of floating-point tensors that returns a scalar.
        primals: its arguments, as a tuple or a list.
        tangents: the direction, with the structure and the shapes of the primals.

    Returns:
        A tuple of one tree for each argument.

    Raises:
        InvalidArgument: primals or tangents are no tuple or list.
        NotATensor: a leaf of an argument is no floating-point tensor.
        ShapeMismatch: the value is no scalar.
        TreeMismatch: the tangents are not like the primals.

    >>> hvp(lambda x: (x**3).sum(), (torch.tensor([1.0, 2.0]),), (torch.tensor([1.0, 1.0]),))
    (tensor([ 6., 12.]),)
    """
    primals, tangents = _as_tuples("hvp", primals, tangents)
    _begin_forward("hvp")
    gradient = torch.func.grad(_scalar(f), argnums=tuple(range(len(primals))))
    with one_at_a_time():
        return torch.func.jvp(gradient, all_passed_on(primals), all_passed_on(tangents))[1]  # pyright: ignore


def jacrev(f: Callable, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Callable:
    """Return a function that gives the Jacobian of `f`, row by row: the way for many inputs and few outputs.

    Args:
        f: a function of trees of floating-point tensors.
        argnums: the argument to differentiate by, or a tuple of several.
        has_aux: whether `f` returns a pair of its value and any tree beside it.

    Returns:
        A function of the same arguments, those by keyword passed on to `f`. What it returns has the structure of the
        value, each leaf replaced by a tree like the argument (a tuple of them for several) of tensors (*shape of the
        value, *shape of the argument); with `has_aux` a pair of that and aux.

    Raises:
        InvalidArgument: `argnums` names no argument; or with `has_aux` the function returns no pair.
        NotATensor: a leaf of an argument or of the value is no floating-point tensor.

    >>> jacrev(lambda x: x**2)(torch.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    return _wrap(f, lambda f: torch.func.jacrev(f, argnums, has_aux=has_aux), argnums, has_aux, "jacrev")


def jacfwd(f: Callable, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Callable:
    """Return a function that gives the Jacobian of `f`, column by column: the way for few inputs and many outputs.

    It takes and returns what `jacrev` does.

    >>> jacfwd(lambda x: x**2)(torch.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    return _wrap(f, lambda f: torch.func.jacfwd(f, argnums, has_aux=has_aux), argnums, has_aux, "jacfwd")


def hessian(f: Callable, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Callable:
    """Return a function that gives the matrix of second derivatives of `f`.

    It is `jacfwd(jacrev(f))`, whose arguments it takes. For products with it, see `hvp`.

    >>> hessian(lambda x: (x**3).sum())(torch.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """

    def twice(f: Callable) -> Callable:
        rows = torch.func.jacrev(f, argnums, has_aux=has_aux)
        return torch.func.jacfwd(rows, argnums, has_aux=has_aux)

    return _wrap(f, twice, argnums, has_aux, "hessian")


def _wrap(f: Callable, derivative: Callable, argnums: Any, has_aux: bool, name: str) -> Callable:
    @wraps(f)
    def differentiated(*args: Any, **kwargs: Any) -> Any:
        for k in (argnums,) if isinstance(argnums, int) else argnums:
            if not -len(args) <= k < len(args):
                raise InvalidArgument(f"{name}: argnums names argument {k}, but there are {len(args)} arguments")
            _check_floating(name, (args[k],), k)
        if name != "jacrev":
            _begin_forward(name)
        returning = Returning(with_keywords(f, kwargs), name, has_aux, backward=name != "jacfwd")
        with one_at_a_time() if name != "jacrev" else nullcontext():
            made = derivative(returning)(*all_passed_on(args))
        return (made[0], returning.aux(made[1])) if has_aux else made

    return differentiated


def _begin_forward(name: str) -> None:
    """Refuse what PyTorch cannot nest, and load what it differentiates forward with."""
    if is_differentiated_by_hand():
        raise InvalidArgument(
            f"{name} inside torch.autograd.forward_ad.dual_level(): PyTorch opens no second level there; take the "
            "outer derivative by functrain's jvp too, which nests, or the inner one by grad or vjp"
        )
    _load_forward()


@cache
def _load_forward() -> None:
    """Import what PyTorch imports where something is first differentiated forward, which warns of itself (2.13)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("torch._decomp.decompositions_for_jvp")


def _check_floating(name: str, arguments: Sequence[Any], first: int = 0) -> None:
    for k, argument in enumerate(arguments):
        for path, leaf in tree.leaves_with_path(argument):
            if not isinstance(leaf, Tensor) or not (leaf.is_floating_point() or leaf.is_complex()):
                where = f" at {path}" if path else ""
                raise NotATensor(
                    f"{name}: argument {first + k}{where}: derivatives need floating-point tensors, got "
                    f"{tree.describe(leaf)}; close over what is not differentiated"
                )


def _as_tuples(name: str, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[tuple, tuple]:
    for what, values in (("primals", primals), ("tangents", tangents)):
        if not isinstance(values, tuple | list):
            raise InvalidArgument(f"{name}: {what} must be a tuple of arguments, got {type(values).__name__}")
    _check_floating(name, primals)
    _check_alike(f"{name}: the tangents", tuple(primals), tuple(tangents))
    return tuple(primals), tuple(tangents)


def _check_alike(what: str, expected: Any, got: Any) -> None:
    wanted, seen = dict(tree.leaves_with_path(expected)), dict(tree.leaves_with_path(got))
    for path in [*wanted, *(p for p in seen if p not in wanted)]:
        a, b = (tree.describe(t[path]) if path in t else "nothing" for t in (wanted, seen))
        if a != b:
            raise TreeMismatch(
                f"{what} must be like what they belong to: at {path or 'the root'} expected {a}, got {b}"
            )


def _scalar(f: Callable) -> Callable:
    def checked(*args: Any) -> Any:
        value = f(*args)
        if not isinstance(value, Tensor) or value.shape != ():
            got = tree.describe(value) if isinstance(value, Tensor) else type(value).__name__
            raise ShapeMismatch(f"hvp: the function must return a scalar tensor, got {got}; reduce it first")
        return value

    return checked
