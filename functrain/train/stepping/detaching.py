"""What a loop carries has no autograd history, which would grow with each step and hold on to all that it was made of.

Histories come from outside: a teacher network in the loss, a batch that an encoder made, a module in a handler.
"""

from typing import Any

from torch import Tensor

from functrain import tree
from functrain.train.stepping.lending import tensors_of


def without_history(value: Any) -> Any:
    """Return the tree with tensors that have no autograd history; the same object where none has one.

    >>> import torch
    >>> x = torch.ones(2, requires_grad=True)
    >>> without_history({"x": 2 * x})
    {'x': tensor([2., 2.])}
    """
    if True not in [tensor.requires_grad for tensor in tensors_of(value)]:
        return value
    return tree.map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) and leaf.requires_grad else leaf, value)
