"""The registry of functrain's own operators: `random` and `optim` enter them, the engine reads how each is computed.

An own operator is one node of a graph where its parts would be dozens. None of them writes to an argument, and none
returns memory of one.
"""

from collections.abc import Callable
from typing import Any

KERNELS: dict[Any, Callable] = {}
"""Operator -> the function that computes it, to call without PyTorch's dispatcher."""

PURE: dict[Any, Callable] = {}
"""Operator -> the function of the same arguments that computes it by pure tensor operations."""

OVERWRITING: dict[Any, tuple[Callable, int]] = {}
"""Operator that returns a list -> a function of the same arguments that puts the results into the tensors of the first
arguments, which are lists, and how many such lists there are. A plan calls it where nobody reads those tensors later.
"""

LAYOUTS: dict[Any, Callable] = {}
"""Operator -> the function of the same arguments, meta tensors among them, that gives meta tensors like the results."""

__all__ = ["KERNELS", "LAYOUTS", "OVERWRITING", "PURE"]
