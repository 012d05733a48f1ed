"""The registry of functrain's own operators: `random` enters them, and the engine reads how each is computed.

An own operator is one node of a graph where its parts would be dozens. None of them writes to an argument, and none
returns memory of one.
"""

from collections.abc import Callable
from typing import Any

KERNELS: dict[Any, Callable] = {}
"""Operator -> the function that computes it, to call without PyTorch's dispatcher."""

PURE: dict[Any, Callable] = {}
"""Operator -> the function of the same arguments that computes it by pure tensor operations."""

__all__ = ["KERNELS", "PURE"]
