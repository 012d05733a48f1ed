"""Which leaf is which: an order that does not depend on that of the keys of dicts, and a path that no other has."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from functrain import tree
from functrain.errors import DuplicateName


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


def own_paths(paths: Iterable[str]) -> list[str]:
    """Return the paths of leaves after checking that each leaf has one of its own.

    Raises:
        DuplicateName: two leaves have one path, as in {"a.b": ..., "a": {"b": ...}}.

    >>> own_paths(["a.b", "c"])
    ['a.b', 'c']
    """
    listed = list(paths)
    if len(set(listed)) < len(listed):
        twice = [path for path, count in Counter(listed).items() if count > 1]
        raise DuplicateName(
            f"two leaves have the path {twice[0]!r}, by which parameters are told apart; give the keys of the tree "
            "other names, without a dot"
        )
    return listed


def map_by_path(f: Callable, values: Any, *rest: Any) -> Any:
    """Return the tree of f(path, leaf, *leaves of the rest), where each leaf has a path of its own, to draw by.

    >>> map_by_path(lambda path, leaf: f"{path}={leaf}", {"a": {"b": 1}})
    {'a': {'b': 'a.b=1'}}
    """
    own_paths(tree.paths(values))
    return tree.map_with_path(f, values, *rest)


def _collect(values: Any, collected: list[Any]) -> None:
    if isinstance(values, dict):
        for key in sorted(values, key=lambda key: (str(key), type(key).__name__)):
            _collect(values[key], collected)
    elif isinstance(values, (list, tuple)):
        for branch in values:
            _collect(branch, collected)
    else:
        collected.extend(tree.leaves(values))
