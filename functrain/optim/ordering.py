"""The order of a tree's leaves in a vector, which must not depend on the order of the keys of its dicts."""

from collections.abc import Sequence
from typing import Any

from functrain import tree


def ordered_leaves(values: Any) -> list[Any]:
    """Return the leaves of a tree, those of a dict by its sorted keys.

    Trees are alike whatever the order of their keys, so parameters, gradients and what was loaded may have different
    ones; and what puts their leaves one after another must not notice.

    >>> ordered_leaves({"b": 1, "a": [3, 2]})
    [3, 2, 1]
    """
    collected: list[Any] = []
    _collect(values, collected)
    return collected


def refill(like: Any, leaves: Sequence[Any]) -> Any:
    """Return the tree with other leaves, which stand in the order of `ordered_leaves`.

    >>> refill({"b": 1, "a": [3, 2]}, [30, 20, 10])
    {'b': 10, 'a': [30, 20]}
    """
    structure = tree.structure(like)
    order = ordered_leaves(tree.unflatten(structure, range(len(leaves))))
    at = dict(zip(order, leaves, strict=True))
    return tree.unflatten(structure, [at[k] for k in range(len(leaves))])


def _collect(values: Any, collected: list[Any]) -> None:
    if isinstance(values, dict):
        for key in sorted(values, key=str):
            _collect(values[key], collected)
    elif isinstance(values, (list, tuple)):
        for branch in values:
            _collect(branch, collected)
    else:
        collected.extend(tree.leaves(values))
