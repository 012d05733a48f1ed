"""In which order a torch optimizer has the parameters."""

from collections.abc import Sequence
from typing import Any

from functrain import tree
from functrain.errors import InvalidArgument
from functrain.optim.ordering import own_paths


def order_of(params: Any, paths: Sequence[str] | None) -> list[str]:
    """Return the paths of the parameters as the torch optimizer counts them, after checking that they are all.

    >>> import torch
    >>> order_of({"a": torch.ones(1), "b": torch.ones(1)}, ["b", "a"])
    ['b', 'a']
    """
    own = own_paths(tree.paths(params))
    if paths is not None and sorted(paths) != sorted(own):
        wrong = sorted(set(paths) ^ set(own)) or list(paths)
        raise InvalidArgument(f"paths must be those of params, each once; they differ in {', '.join(wrong[:10])}")
    return own if paths is None else list(paths)
