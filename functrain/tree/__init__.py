"""Trees of tensors: nested dicts, lists, tuples and frozen records, mapped, compared and addressed by dotted path.

This is the only package that knows the pytree library (`torch.utils._pytree`, because `torch.func` speaks it too).

>>> import torch
>>> params = {"0": {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}}
>>> paths(params)
['0.weight', '0.bias']
>>> map(lambda p: p.shape[0], params)
{'0': {'weight': 2, 'bias': 2}}
"""

from functrain.tree.by_path import filter, leaves_with_path, paths, replace
from functrain.tree.comparing import alike, check_same, check_tensors, describe, differences, equal
from functrain.tree.mapping import all, map, map_with_path
from functrain.tree.nodes import evolve, is_node, node, static
from functrain.tree.showing import Table, table
from functrain.tree.structures import Structure, Tree, flatten, leaves, structure, unflatten
from functrain.tree.tensors import clone, global_norm, size, stack, to, zeros_like

__all__ = [
    "Structure",
    "Table",
    "Tree",
    "alike",
    "all",
    "check_same",
    "check_tensors",
    "clone",
    "describe",
    "differences",
    "equal",
    "evolve",
    "filter",
    "flatten",
    "global_norm",
    "is_node",
    "leaves",
    "leaves_with_path",
    "map",
    "map_with_path",
    "node",
    "paths",
    "replace",
    "size",
    "stack",
    "static",
    "structure",
    "table",
    "to",
    "unflatten",
    "zeros_like",
]


def __dir__() -> list[str]:
    return __all__
