"""One function over all leaves."""

import builtins
from collections.abc import Callable
from typing import Any

import torch.utils._pytree as pytree
from torch import Tensor

from functrain.errors import TreeMismatch
from functrain.tree.by_path import paths
from functrain.tree.comparing import check_same
from functrain.tree.structures import Tree, leaves, structure, unflatten


def map(f: Callable, tree: Tree, *rest: Tree) -> Tree:
    """Return the tree of `f(leaf, *leaves of the rest at the same place)`.

    Raises `TreeMismatch` when the rest has not the structure of the first tree; the order of dict keys is free.

    >>> map(lambda a, b: a + b, {"x": 1, "y": 2}, {"y": 20, "x": 10})
    {'x': 11, 'y': 22}
    """
    try:
        return _map(f, tree, *rest)
    except _Differs:
        pass
    for other in rest:
        check_same(tree, other)
    raise TreeMismatch("the trees differ in the types of their branches")


class _Differs(Exception):
    """The trees of one `map` differ somewhere; never leaves this module."""


def _map(f, tree, *rest):
    if type(tree) is dict:  # parameters are nested dicts: this path is several times faster than the general one
        if not rest:
            return {k: f(v) if isinstance(v, Tensor) else _map(f, v) for k, v in tree.items()}
        other, *more = rest
        if more:
            return _map_dicts(f, tree, rest)
        if type(other) is not dict or other.keys() != tree.keys():
            raise _Differs
        return {
            k: f(v, o) if isinstance(v, Tensor) and isinstance(o := other[k], Tensor) else _map(f, v, other[k])
            for k, v in tree.items()
        }
    if isinstance(tree, Tensor):
        for other in rest:
            if type(other) is dict:
                raise _Differs
        return f(tree, *rest)
    branches, spec = pytree.tree_flatten(tree)
    others = [_flatten_as(spec, other) for other in rest]
    return pytree.tree_unflatten([f(*group) for group in zip(branches, *others, strict=True)], spec)


def _map_dicts(f, tree, rest):
    for other in rest:
        if type(other) is not dict or other.keys() != tree.keys():
            raise _Differs
    made = {}
    for k, v in tree.items():
        others = [other[k] for other in rest]
        plain = isinstance(v, Tensor) and dict not in builtins.map(type, others)
        made[k] = f(v, *others) if plain else _map(f, v, *others)
    return made


def _flatten_as(spec, tree):
    branches, own = pytree.tree_flatten(tree)
    if own == spec:
        return branches
    try:  # the order of dict keys may still differ
        branches = spec.flatten_up_to(tree)
    except ValueError:
        raise _Differs from None
    if not builtins.all(pytree.tree_structure(leaf).is_leaf() for leaf in branches):
        raise _Differs
    return branches


def map_with_path(f: Callable, tree: Tree, *rest: Tree) -> Tree:
    """Return the tree of `f(dotted path, leaf, *leaves of the rest)`.

    >>> map_with_path(lambda path, leaf: f"{path}={leaf}", {"a": {"b": 1}})
    {'a': {'b': 'a.b=1'}}
    """
    named = unflatten(structure(tree), paths(tree))
    return map(lambda leaf, path, *others: f(path, leaf, *others), tree, named, *rest)


def all(predicate: Callable[[Any], bool], tree: Tree) -> bool:
    """Return whether the predicate holds for every leaf.

    >>> all(lambda leaf: leaf > 0, {"a": 1, "b": 2})
    True
    """
    return builtins.all(predicate(leaf) for leaf in leaves(tree))
