"""Taking a tree apart and putting it together."""

from collections.abc import Iterable
from typing import Any

import torch.utils._pytree as pytree
from torch import Tensor

Tree = Any
"""Anything made of dicts, lists, tuples and `node` classes; whatever else stands in it is a leaf."""

Structure = pytree.TreeSpec
"""What is left of a tree when its leaves are taken out."""


def flatten(tree: Tree) -> tuple[list[Any], Structure]:
    """Return the leaves of a tree and its structure, so that `unflatten(structure, leaves)` gives the tree back.

    >>> flatten({"a": 1, "b": (2, 3)})[0]
    [1, 2, 3]
    """
    return pytree.tree_flatten(tree)


def unflatten(structure: Structure, leaves: Iterable[Any]) -> Tree:
    """Return the tree of this structure with these leaves.

    >>> leaves, structure = flatten({"a": 1, "b": (2, 3)})
    >>> unflatten(structure, [4, 5, 6])
    {'a': 4, 'b': (5, 6)}
    """
    return pytree.tree_unflatten(leaves, structure)


def structure(tree: Tree) -> Structure:
    """Return what is left of a tree without its leaves; two structures can be compared with `==`.

    >>> structure({"a": 1}) == structure({"a": 2})
    True
    """
    return pytree.tree_structure(tree)


def leaves(tree: Tree) -> list[Any]:
    """Return the leaves of a tree, in the order of its branches.

    >>> leaves({"b": 1, "a": [2, 3]})
    [1, 2, 3]
    """
    collected: list[Any] = []
    _collect(tree, collected)
    return collected


def _collect(tree: Tree, collected: list[Any]) -> None:
    if type(tree) is not dict:
        collected.extend(pytree.tree_leaves(tree))
        return
    for branch in tree.values():  # parameters are nested dicts: this path is several times faster than the general one
        if type(branch) is Tensor:
            collected.append(branch)
        else:
            _collect(branch, collected)
