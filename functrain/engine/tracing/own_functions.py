"""Functions of `torch.autograd.Function` under transforms: their methods run in the modes of the code around them.

PyTorch takes a mode of functions away while it runs what the mode has seen, and it runs the whole of such a function
so: forward, the rule of `vmap`, `jvp`. A backward pass runs wherever somebody asks for it, often in no mode.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch._functorch.autograd_function import custom_function_call
from torch.autograd import Function

from functrain.dispatch_state import vectorizing_levels

APPLIED = custom_function_call
"""What a mode of functions sees where a transform is around a function of one's own."""

_METHODS = ("forward", "setup_context", "backward", "vjp", "jvp", "vmap")


def in_modes(function: type[Function], again: Callable[[], AbstractContextManager]) -> type[Function]:
    """Return a function that runs the methods of another in a context.

    Args:
        function: what its user calls `apply` of.
        again: returns the context, anew for each method that runs.

    >>> from contextlib import nullcontext
    >>> class Twice(Function):
    ...     @staticmethod
    ...     def forward(x):
    ...         return 2 * x
    >>> in_modes(Twice, nullcontext).forward(3)
    6
    """
    own = [name for name in _METHODS if getattr(function, name, None) is not getattr(Function, name, None)]
    methods: dict[str, Any] = {name: staticmethod(within(getattr(function, name), again)) for name in own}
    if function.generate_vmap_rule:
        forward = within(function.forward, again)
        methods["forward"] = staticmethod(lambda *inputs: in_all_batches(forward(*inputs), inputs))
    return type(function)(function.__name__, (function,), methods)  # pyright: ignore[reportCallIssue]


def in_all_batches(made: Any, inputs: Iterable[Any]) -> Any:
    """Return what a function made, with an axis for each batch of its inputs, so that its gradient has them too.

    PyTorch adds up the gradients of rows that have one value in common before the function's own backward pass, which
    may yet depend on the row.

    Args:
        made: a tensor, or a tuple or list of them and of other things.
        inputs: what it is made from.

    >>> in_all_batches((torch.ones(2), "text"), [torch.ones(3)])
    (tensor([1., 1.]), 'text')
    """
    if isinstance(made, (tuple, list)):
        inputs = list(inputs)
        return type(made)(in_all_batches(one, inputs) for one in made)
    rows = [x for x in inputs if isinstance(x, Tensor)]
    if not isinstance(made, Tensor) or any(made is x for x in rows):
        return made
    for x in rows:
        if vectorizing_levels([x]) - vectorizing_levels([made]):
            made = torch.where(x.new_zeros((), dtype=torch.bool), made, made)
    return made


def within(method: Callable, again: Callable[[], AbstractContextManager]) -> Callable:
    """Return a function that runs in a context, made anew each time.

    >>> from contextlib import nullcontext
    >>> within(abs, nullcontext)(-3)
    3
    """

    @wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        with again():
            return method(*args, **kwargs)

    return run
