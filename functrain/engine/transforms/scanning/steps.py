"""What a step of a scan may return: the next carry, like the last one, and tensors."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from functrain import tree
from functrain.engine.transforms.folding import Stop
from functrain.errors import NotATensor, TreeMismatch


def unpack(result: Any) -> tuple[Any, Any, Any]:
    """Return the carry, the output and the condition to stop of what a step returned.

    >>> unpack((1, 2))
    (1, 2, False)
    """
    if isinstance(result, Stop):
        return result.carry, result.y, result.when
    if isinstance(result, tuple) and len(result) == 2:
        return *result, False
    raise NotATensor(f"the function of a scan must return (carry, y) or Stop(carry, y), got {type(result).__name__}")


def check_carry(before: Any, after: Any, name: str = "scan") -> None:
    """Raise `TreeMismatch` where a step made something else of the carry.

    >>> check_carry({"n": torch.tensor(0)}, {"n": torch.tensor(1)})
    """
    old, old_spec = tree.flatten(before)
    new, new_spec = tree.flatten(after)
    if old_spec == new_spec and all(map(_alike, old, new)):
        return
    was, now = dict(tree.leaves_with_path(before)), dict(tree.leaves_with_path(after))
    wrong = [path for path in [*was, *(p for p in now if p not in was)] if not _alike(was.get(path), now.get(path))]
    lines = [
        f"  {path or 'carry'}: began as {_describe(was, path)}, became {_describe(now, path)}" for path in wrong[:10]
    ]
    lines = lines or [f"  the branches: began as {old_spec}, became {new_spec}"]
    raise TreeMismatch(
        "\n".join([f"a step of {name} must keep the structure, shapes and dtypes of the carry, but:", *lines])
    )


def _alike(a: Any, b: Any) -> bool:
    return (
        isinstance(a, Tensor)
        and isinstance(b, Tensor)
        and a.shape == b.shape
        and a.dtype == b.dtype
        and a.device == b.device
    )


def _describe(leaves: dict[str, Any], path: str) -> str:
    if path not in leaves:
        return "nothing"
    leaf = leaves[path]
    return f"{tree.describe(leaf)} on {leaf.device}" if isinstance(leaf, Tensor) else tree.describe(leaf)


def outputs_of(y: Any) -> tuple[list[Tensor], Any]:
    """Return the leaves of a step's output as tensors, and its structure; None is no leaf where it is all of it."""
    if y is None:
        return [], None
    leaves, spec = tree.flatten(y)
    for path, leaf in tree.leaves_with_path(y):
        if not isinstance(leaf, Tensor | bool | int | float | complex):
            where = f"leaf {path}" if path else "it"
            raise NotATensor(f"the output of scan: {where} must be a tensor or a number, got {type(leaf).__name__}")
    return [torch.as_tensor(leaf) for leaf in leaves], spec


def columns_of(xs: Any) -> tuple[list[Tensor], Callable[[Iterable[Any]], Any]]:
    """Return the tensors of xs, and the function that makes a row's tree of a row of each.

    >>> columns, row = columns_of({"a": torch.ones(2), "b": None})
    >>> row([1])
    {'a': 1, 'b': None}
    """
    leaves, spec = tree.flatten(xs)

    def row(some: Iterable[Any]) -> Any:
        following = iter(some)
        return tree.unflatten(spec, [None if leaf is None else next(following) for leaf in leaves])

    return [leaf for leaf in leaves if leaf is not None], row
