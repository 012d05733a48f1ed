"""Gradients of weights, of which the loop back makes no sum: the products of all steps are one product after it.

The gradient of a weight is at each step a product over the rows of the batch. Where these are few, to add it to the sum
is to read and write a whole weight for little work; so the loop puts out the factors, and one product over the rows of
all steps does the rest.
"""

from typing import Any

import attrs
import torch
from torch import Tensor
from torch.fx import Node

aten = torch.ops.aten


@attrs.frozen
class Product:
    """A gradient that is left.T @ right, or that transposed, summed over the steps.

    Attributes:
        left: (rows, m), of each step.
        right: (rows, n), of each step.
        is_transposed: whether the gradient is (n, m).
    """

    left: Node
    right: Node
    is_transposed: bool


def as_product(gradient: Node) -> Product | None:
    """Return the factors of the gradient of a step, where it pays to multiply them later."""
    node: Any = gradient
    is_transposed = False
    while node.target is aten.t.default:
        node, is_transposed = node.args[0], not is_transposed
    if node.target is not aten.mm.default or len(node.users) > 1:
        return None
    transposed, right = node.args
    if transposed.target is not aten.t.default:
        return None
    left = transposed.args[0]
    rows, columns = right.meta["val"].shape
    return Product(left, right, is_transposed) if 2 * rows <= columns else None


def multiply(left: Tensor, right: Tensor, is_transposed: bool) -> Tensor:
    """Return the sum over the steps, from the factors of all steps (steps, rows, ...).

    >>> multiply(torch.ones(5, 2, 3), torch.ones(5, 2, 4), True).shape
    torch.Size([4, 3])
    """
    a, b = left.flatten(0, 1), right.flatten(0, 1)
    return b.t() @ a if is_transposed else a.t() @ b
