"""Checks that the trees of one update fit: gradients, parameters and the optimizer's state."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from functrain import tree
from functrain.errors import DtypeMismatch, InvalidArgument, TreeMismatch


def check_gradients(updates: Any, params: Any, what: str = "the gradients") -> None:
    """Raise `TreeMismatch` unless the updates have the structure of the parameters, and its shapes.

    >>> check_gradients({"w": torch.zeros(2, 1)}, {"w": torch.zeros(2)})
    Traceback (most recent call last):
        ...
    functrain.errors.TreeMismatch: the gradients must have the structure of the parameters, but:
      w: expected float32(2,), got float32(2, 1)
    """
    # Shapes as well: those that broadcast would pass through the arithmetic and give wrong parameters silently.
    if not are_alike(updates, params):
        tree.check_same(params, updates, what, "the parameters")
        raise TreeMismatch(f"{what} differ from the parameters in the types of their branches")


def are_alike(a: Any, b: Any) -> bool:
    """Return whether two trees have the same structure, with tensors of the same shapes.

    >>> are_alike({"a": torch.ones(2), "b": ()}, {"b": (), "a": torch.zeros(2)}), are_alike((), ((),))
    (True, False)
    """
    if type(a) is dict:
        return type(b) is dict and a.keys() == b.keys() and False not in [are_alike(a[key], b[key]) for key in a]
    if type(a) is Tensor:
        return isinstance(b, Tensor) and a.shape == b.shape
    try:
        same = tree.map(lambda x, y: getattr(x, "shape", None) == getattr(y, "shape", None), a, b)
    except TreeMismatch:
        return False
    return all(tree.leaves(same))


def explain_mismatch(updates: Any, params: Any, states: Mapping[str, tuple[Any, Any]]) -> None:
    """Raise `TreeMismatch` where gradients or parts of a state do not fit, after something else has gone wrong.

    Args:
        updates: the gradients.
        params: the parameters.
        states: by name, what a part of the state would be at the beginning, and what it is.
    """
    check_gradients(updates, params)
    for expected, got in states.values():
        tree.check_same(
            expected, got, "the optimizer state", "the gradients (was it made by init for other parameters?)"
        )


def check_dense(updates: Any) -> None:
    """Raise `InvalidArgument` where a gradient is a sparse tensor; for after something else has gone wrong.

    >>> check_dense({"w": torch.zeros(2)})
    """
    for path, leaf in tree.leaves_with_path(updates):
        if isinstance(leaf, Tensor) and leaf.layout is not torch.strided:
            raise InvalidArgument(
                f"gradients must be dense, but {path or 'the one'} is {str(leaf.layout).removeprefix('torch.')}, as "
                "torch.nn.Embedding(sparse=True) makes it; leave that out, or convert it with to_dense(). There is no "
                "like of torch.optim.SparseAdam here: a moment that stands still where a row has no gradient is of no "
                "dense formula"
            )


def check_kinds(updates: Any, params: Any, what: str = "the gradients") -> None:
    """Raise `DtypeMismatch` where a gradient is not of the kind of its parameter: complex, or without a fraction.

    `what` names the gradients in the message.

    >>> check_kinds({"w": torch.zeros(2)}, {"w": torch.ones(2, dtype=torch.float64)})
    """
    here = dict(tree.leaves_with_path(params))
    for path, leaf in tree.leaves_with_path(updates):
        param = here.get(path)
        if not isinstance(leaf, Tensor) or not isinstance(param, Tensor):
            continue
        if (leaf.is_complex() and not param.is_complex()) or not (leaf.is_floating_point() or leaf.is_complex()):
            raise DtypeMismatch(
                f"{what} must be of the kind of their parameters, but {path or 'the one'} is {tree.describe(leaf)}, "
                f"and the parameter {tree.describe(param)}"
            )


def check_state(part: Any, params: Any) -> None:
    """Raise `TreeMismatch` unless a part of a state has the structure and the shapes of the parameters.

    >>> check_state({"w": torch.zeros(2)}, {"w": torch.zeros(3)})
    Traceback (most recent call last):
        ...
    functrain.errors.TreeMismatch: the optimizer state must have the structure of the gradients (was it made by init \
for other parameters?), but:
      w: expected float32(3,), got float32(2,)
    """
    if not are_alike(part, params):
        explain_mismatch(params, params, {"part": (params, part)})


def check_trainable(params: Any, real: bool = False) -> None:
    """Raise `DtypeMismatch` unless all parameters are tensors of real (or complex) numbers with a fraction.

    >>> check_trainable({"steps": torch.tensor(3)})
    Traceback (most recent call last):
        ...
    functrain.errors.DtypeMismatch: parameters must be floating-point or complex tensors, but steps is int64(); keep \
it in the model's buffers
    """
    for leaf in tree.leaves(params):
        complex_ = isinstance(leaf, Tensor) and leaf.is_complex()
        if not isinstance(leaf, Tensor) or not (leaf.is_floating_point() or complex_) or (real and complex_):
            path = next(path for path, one in tree.leaves_with_path(params) if one is leaf)
            kinds = "real floating-point" if real else "floating-point or complex"
            remedy = "give it to another transform with partition" if complex_ else "keep it in the model's buffers"
            raise DtypeMismatch(
                f"parameters must be {kinds} tensors, but {path or 'the one'} is {tree.describe(leaf)}; {remedy}"
            )


def wide_copy(params: Any) -> Any:
    """Return copies of some parameters, in float32 at least, after checking that they are tensors.

    >>> wide_copy({"w": torch.ones(2, dtype=torch.bfloat16)})
    {'w': tensor([1., 1.])}
    """
    tree.check_tensors(params, "the parameters")
    return tree.map(lambda p: p.to(torch.promote_types(p.dtype, torch.float32), copy=True), params)


def counter(params: Any) -> Tensor:
    """Return a zero to count from, an int64 scalar on the device of the parameters.

    >>> counter({"w": torch.ones(2)})
    tensor(0)
    """
    return torch.zeros((), dtype=torch.int64, device=device(params))


def device(params: Any) -> torch.device | None:
    """Return the device of the first tensor of a tree, None when there is none."""
    return next((leaf.device for leaf in tree.leaves(params) if isinstance(leaf, Tensor)), None)
