"""Calls that reach as many aten operations as possible, for the search of `tests.conformance.schemas`."""

import itertools
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map

from tests.conformance.schemas import Watch

DTYPES = (torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64)


# Forms of the inputs: the same values, laid out otherwise


def transposed(x: torch.Tensor) -> torch.Tensor:
    return x.mT.contiguous().mT if x.dim() > 1 else x


def channels_last(x: torch.Tensor) -> torch.Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.contiguous(memory_format=formats[x.dim()]) if x.dim() in formats else x


def strided(x: torch.Tensor) -> torch.Tensor:
    """Every second element of something larger."""
    return torch.stack([x, x], dim=-1).select(-1, 0)


def conjugate(x: torch.Tensor) -> torch.Tensor:
    return x.conj().resolve_conj().conj() if x.is_complex() else x


def negative(x: torch.Tensor) -> torch.Tensor:
    return torch._neg_view(-x) if x.is_floating_point() or x.is_complex() else x


def plain(x: torch.Tensor) -> torch.Tensor:
    return x


FORMS = (plain, transposed, channels_last, strided, conjugate, negative)


def is_other(form: Callable, values: list[torch.Tensor]) -> bool:
    """Whether a form changes anything about these tensors."""
    forms = [form(x) for x in values]
    return form is plain or any(
        x.stride() != y.stride() or x.is_conj() != y.is_conj() or x.is_neg() != y.is_neg()
        for x, y in zip(values, forms, strict=True)
    )


# Forward and backward


def differentiable(value: Any) -> list[torch.Tensor]:
    leaves = tree_flatten(value)[0]
    return [x for x in leaves if isinstance(x, torch.Tensor) and x.requires_grad]


def backward(result: Any, inputs: list[torch.Tensor], watch: Watch, expanded: bool, twice: bool) -> None:
    """The gradients of the inputs, from gradients with memory of their own or (as of a sum) one element expanded."""
    outputs = differentiable(result)
    if not outputs or not inputs:
        return
    one = [torch.ones((), dtype=x.dtype).expand(x.shape) if expanded else torch.randn_like(x) for x in outputs]
    with watch:
        grads = torch.autograd.grad(outputs, inputs, one, allow_unused=True, create_graph=twice)
        again = differentiable(grads)
        if twice and again:
            torch.autograd.grad(again, inputs, [torch.randn_like(x) for x in again], allow_unused=True)


def attempt(watch: Watch, call: Callable[[], Any], inputs: list[torch.Tensor], expanded=False, twice=False) -> None:
    """Runs a call and its backward pass under the watch. Not every form of input fits every operation."""
    try:
        with watch:
            result = call()
        backward(result, inputs, watch, expanded, twice)
    except Exception:
        watch.failures += 1


# PyTorch's own sample inputs


def try_sample(watch: Watch, op: Any, sample: Any, form: Callable, number: int) -> None:
    """One sample of an operation in one form: forward, backward and in place."""
    leaves: list[torch.Tensor] = []

    def leaf(x):
        if not isinstance(x, torch.Tensor) or x.layout is not torch.strided:
            return x
        copy = x.detach().clone(memory_format=torch.preserve_format)
        if x.requires_grad:
            leaves.append(copy.requires_grad_())
        return form(copy)

    given = tree_map(leaf, (sample.input, sample.args, sample.kwargs))
    attempt(watch, lambda: op(given[0], *given[1], **given[2]), leaves, number % 2 == 1, number % 3 == 0)
    if (inplace := op.get_inplace()) and isinstance(given[0], torch.Tensor):
        with torch.no_grad():
            attempt(watch, lambda: inplace(given[0], *given[1], **given[2]), [])


def try_op(watch: Watch, op: Any, dtype: torch.dtype, seconds: float) -> None:
    """The samples of one operation in all forms, until the time is over; plain ones first."""
    end = time.thread_time() + seconds  # so that other programs do not make it shorter
    grad = op.supports_autograd and (dtype.is_floating_point or dtype.is_complex)
    samples = list(itertools.islice(op.sample_inputs("cpu", dtype, requires_grad=grad), 60))
    for form, (number, sample) in itertools.product(FORMS, enumerate(samples)):
        if time.thread_time() > end:
            return
        values = [x for x in tree_flatten((sample.input, sample.args, sample.kwargs))[0] if torch.is_tensor(x)]
        if is_other(form, [x for x in values if x.layout is torch.strided]):
            watch.label = f"{op.name} {op.variant_test_name} {str(dtype)[6:]} {form.__name__} sample {number}"
            try_sample(watch, op, sample, form, number)


def database() -> list:
    """The operations of PyTorch's database. Backward passes of sparse products crash when they are watched."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
    return [op for op in op_db if not op.name.startswith("sparse.")]


def try_database(watch: Watch, ops: list, seconds: float) -> None:
    """Every operation in every dtype it knows, each at most about so many seconds of CPU time."""
    for op, dtype in itertools.product(ops, DTYPES):
        if dtype in op.supported_dtypes("cpu"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try_op(watch, op, dtype, seconds)
