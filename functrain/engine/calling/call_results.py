"""The result of a function that has been traced: a tree of tensors, taken apart."""

from typing import Any

from torch import Tensor

from functrain import tree
from functrain.errors import NonTensorOutput


class Results:
    """What a trace returned.

    Attributes:
        spec: the structure of the result.
        tensor_at: which of its leaves are tensors.
        paths: their dotted paths.
    """

    spec: tree.Structure
    tensor_at: list[int]
    paths: list[str]

    def take(self, result: Any, name: str) -> list[Tensor]:
        """Return the tensors of a result, and keep the rest.

        Raises:
            NonTensorOutput: a leaf is neither tensor nor None.
        """
        leaves, self.spec = tree.flatten(result)
        self.tensor_at, self.paths, tensors = [], [], []
        named = tree.leaves_with_path(result)
        for k, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor):
                self.tensor_at.append(k)
                self.paths.append(named[k][0])
                tensors.append(leaf)
            elif leaf is not None:
                where = f" at {named[k][0]}" if named[k][0] else ""
                raise NonTensorOutput(
                    f"{name} returned {type(leaf).__name__}{where}: {leaf!r:.60}; under jit a result is made of "
                    "tensors: use torch.as_tensor, or leave it out"
                )
        return tensors
