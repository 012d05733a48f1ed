"""What is done with the tensors of a tree."""

import torch
from torch import Tensor

from functrain import norms
from functrain.tree.mapping import map
from functrain.tree.structures import Tree, leaves


def stack(trees: list[Tree]) -> Tree:
    """Return one tree whose leaves are the leaves of the trees stacked along a new first axis.

    >>> stack([{"a": 1.0}, {"a": 2.0}])
    {'a': tensor([1., 2.])}
    """
    return map(lambda *group: torch.stack([torch.as_tensor(leaf) for leaf in group]), *trees)


def to(tree: Tree, where: torch.device | torch.dtype | str) -> Tree:
    """Return the tree with its tensors on a device, or its floating-point tensors in a dtype.

    >>> to({"w": torch.ones(2), "n": torch.tensor(3)}, torch.float64)
    {'w': tensor([1., 1.], dtype=torch.float64), 'n': tensor(3)}
    """
    if isinstance(where, torch.dtype):
        return map(lambda t: t.to(where) if isinstance(t, Tensor) and t.is_floating_point() else t, tree)
    return map(lambda t: t.to(where) if isinstance(t, Tensor) else t, tree)


def clone(tree: Tree) -> Tree:
    """Return the tree with a copy of each tensor, in memory of its own.

    >>> before = {"w": torch.ones(2), "name": "a"}
    >>> after = clone(before)
    >>> after["w"].equal(before["w"]), after["w"] is before["w"], after["name"]
    (True, False, 'a')
    """
    return map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, tree)


def zeros_like(tree: Tree) -> Tree:
    """Return the tree with each tensor replaced by zeros of its shape, dtype and device.

    >>> zeros_like({"a": torch.ones(2)})
    {'a': tensor([0., 0.])}
    """
    return map(torch.zeros_like, tree)


def size(tree: Tree) -> int:
    """Return the number of elements in all tensors of a tree.

    >>> size({"weight": torch.ones(3, 2), "bias": torch.ones(3)})
    9
    """
    return sum(leaf.numel() for leaf in leaves(tree) if isinstance(leaf, Tensor))


def global_norm(tree: Tree) -> Tensor:
    """Return the Euclidean norm of all leaves taken as one vector, a scalar in float32 at least; 0 without leaves.

    >>> global_norm({"a": torch.tensor([3.0]), "b": torch.tensor([4.0])})
    tensor(5.)
    """
    return norms.norm(leaves(tree))
