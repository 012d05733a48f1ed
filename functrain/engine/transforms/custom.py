"""Gradients that a function states itself, or does not have."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from functrain import tree
from functrain.dispatch_state import (
    alive,
    current_level,
    differentiating_levels,
    is_differentiated_besides,
    is_transformed,
)
from functrain.engine.tracing.modes.staying_modes import as_now
from functrain.engine.tracing.modes.watching import watch_again
from functrain.engine.tracing.own_functions import in_all_batches, within
from functrain.engine.transforms.closing import Closed, Filling, all_passed_on, closures
from functrain.engine.transforms.closures_refused import LOST, ClosuresRefused
from functrain.engine.transforms.mapped_rows import current_rows, rows_again
from functrain.errors import InvalidArgument, NotATensor, TreeMismatch


def stop_gradient(x: Any) -> Any:
    """Return a tree of the same values through which no gradient goes, backward or forward.

    >>> torch.func.grad(lambda x: x * stop_gradient(x))(torch.tensor(3.0))
    tensor(3.)
    """
    return tree.map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, x)


def custom_gradient(f: Callable) -> Callable:
    """Return a function whose gradient `f` states itself.

    Args:
        f: a pure function of trees that returns (value, pull); `pull` takes a tree like the value, the cotangents, and
            returns the gradient by the argument, a tree like it; of several arguments a tuple of them. None stands
            for a gradient of zero. What is differentiated must be an argument, by position, not closed over. `f` runs
            again in the backward pass, so that its gradient can be differentiated and vmapped too.

    Returns:
        A function of the same arguments that returns the value. It has no derivative forward (`jvp`).

    Raises:
        NotATensor: `f` returns no pair, or a value with something that is no tensor.
        TreeMismatch: what `pull` returns is not like the arguments.
        InvalidArgument: `f` closes over a tensor that is being differentiated; or it is differentiated forward.
        NotTraceable: under torch.func, where `f` is traced to find what it closes over, it looks at values of a tensor.

    >>> @custom_gradient
    ... def clipped(x):
    ...     return x * 1, lambda cotangent: cotangent.clamp(-1, 1)
    >>> torch.func.grad(lambda x: 5 * clipped(x))(torch.tensor(3.0))
    tensor(1.)
    """

    @wraps(f)
    def with_gradient(*args: Any, **kwargs: Any) -> Any:
        leaves, spec = tree.flatten(all_passed_on(args))
        where = [k for k, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        seen: list[Any] = []
        call = _Call(f, all_passed_on(kwargs), leaves, spec, where, seen)
        tensors = [leaves[k] for k in where]
        out = _Custom.apply(call, *tensors, *call.close_over(tensors))
        return tree.unflatten(seen[0], list(out))

    return with_gradient


class _Call:
    """A call of a function that states its gradient, from the tensors among its arguments."""

    def __init__(self, f: Callable, kwargs: dict, leaves: list, spec: Any, where: list[int], seen: list) -> None:
        self.f, self.kwargs, self.leaves, self.spec, self.where, self.seen = f, kwargs, leaves, spec, where, seen
        self.name, self.rows = getattr(f, "__name__", type(f).__name__), current_rows()
        self.closed, self.again = Closed([], {}, []), as_now()

    def close_over(self, tensors: list[Tensor]) -> list[Tensor]:
        """Return the rows that the function closes over, as further arguments; refuse what is being differentiated.

        PyTorch numbers the transforms anew where it runs the function: it would take them for rows of others.
        """
        if not is_transformed() or get_proxy_mode() is not None:
            return []

        def both(inputs: Sequence[Tensor]) -> list[Tensor]:
            value, pull = self(tuple(inputs))
            self._check_value(tree.leaves(value))
            made = tree.leaves((value, pull(tree.map(torch.zeros_like, value))))
            return [leaf for leaf in made if isinstance(leaf, Tensor)]

        self.closed = closures(within(both, self.again), tensors, self._title())
        if differentiating_levels(self.closed.tensors):
            raise InvalidArgument(f"{self._title()} {LOST}")
        return self.closed.tensors

    def _title(self) -> str:
        return f"{self.name} under custom_gradient"

    def __call__(self, tensors: tuple[Tensor, ...]) -> tuple[Any, Callable]:
        filled = list(self.leaves)
        for k, tensor in zip(self.where, tensors[: len(self.where)], strict=True):
            filled[k] = tensor
        made = self.f(*tree.unflatten(self.spec, filled), **self.kwargs)
        if not (isinstance(made, tuple) and len(made) == 2 and callable(made[1])):
            got = "a tensor" if isinstance(made, Tensor) else type(made).__name__
            raise NotATensor(f"{self.name} under custom_gradient must return (value, pull), got {got}")
        return made

    def value(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        with watch_again(), self.again(), rows_again(self.rows), self._filling(tensors) as mode:
            value, structure = tree.flatten(self(tensors)[0])
        self._check_value(value)
        self.seen[:] = [structure]
        return tuple(mode.swap(leaf) for leaf in value)

    def _filling(self, tensors: tuple[Tensor, ...]) -> Filling | ClosuresRefused:
        """Return the mode in which the further arguments stand for what is closed over; without any, none may be."""
        if self.closed.tensors:
            return Filling(self.closed, tensors[len(self.where) :])
        return ClosuresRefused(self._title(), tensors)

    def _check_value(self, leaves: list[Any]) -> None:
        wrong = [leaf for leaf in leaves if not isinstance(leaf, Tensor)]
        if wrong:
            raise NotATensor(f"the value of {self.name} must be tensors, got {type(wrong[0]).__name__} in it")

    def gradients(self, tensors: tuple[Tensor, ...], cotangents: list[Tensor]) -> list[Tensor | None]:
        with self._filling(tensors) if self.closed.tensors else nullcontext():
            _, pull = self(tensors)
            made = pull(tree.unflatten(self.seen[0], cotangents))
        args = tree.unflatten(self.spec, self.leaves)
        each = (made,) if len(args) == 1 else made
        if not isinstance(each, tuple) or len(each) != len(args):
            raise TreeMismatch(f"the gradient of {self.name} must be a tuple of {len(args)}, one for each argument")
        flat = [leaf for a, g in zip(args, each, strict=True) for leaf in self._leaves(a, g)]
        return [flat[k] for k in self.where] + [None] * len(self.closed.tensors)

    def _leaves(self, argument: Any, gradient: Any) -> list[Any]:
        leaves, spec = tree.flatten(argument)
        if gradient is None:
            return [None] * len(leaves)
        derivatives, got = tree.flatten(gradient)
        if got != spec:
            raise TreeMismatch(f"the gradient of {self.name} must be like its argument: expected {spec}, got {got}")
        for leaf, g in zip(leaves, derivatives, strict=True):
            if isinstance(leaf, Tensor) and g is not None and (not isinstance(g, Tensor) or g.shape != leaf.shape):
                expected, seen = tree.describe(leaf), tree.describe(g)
                raise TreeMismatch(
                    f"the gradient of {self.name} must be like its argument: expected {expected}, got {seen}"
                )
        return derivatives


def _is_float(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


class _Custom(torch.autograd.Function):
    """(call, *tensors) -> the leaves of its value."""

    generate_vmap_rule = True

    @staticmethod
    def forward(call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        value = [t.view_as(t) if any(t is x for x in tensors) else t for t in call.value(tensors)]
        return in_all_batches(tuple(value), tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        ctx.call, *tensors = inputs
        ctx.level = current_level()
        ctx.mark_non_differentiable(*[t for t in output if not _is_float(t)])
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple:
        saved = ctx.saved_tensors  # which a checkpoint around this lets be read once
        is_differentiated = is_differentiated_besides([*saved, *cotangents], ctx.level)
        saved = tuple(alive(t) for t in saved)
        call = ctx.call
        with watch_again(), call.again(), rows_again(call.rows), torch.set_grad_enabled(is_differentiated):
            gradients = call.gradients(saved, [alive(c) for c in cotangents])
        return None, *(g if _is_float(t) else None for g, t in zip(gradients, saved, strict=True))

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:  # pyright: ignore
        raise InvalidArgument(
            f"{ctx.call.name} states its gradient by custom_gradient, which is for reverse mode alone: it has no "
            "derivative forward (jvp, jacfwd, hessian, hvp); use vjp, grad or jacrev, or nest them"
        )
