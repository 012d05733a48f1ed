"""Where the memory of intermediate results comes from: not from the system anew at each call."""

import torch
from torch.fx import GraphModule

from functrain.engine.graph.aliasing import Aliasing
from functrain.engine.tracing.abstract_tensor import Abstract

_BLOCK = (1 << 23) - (1 << 13)
"""What is freed, in bytes: with its header and alignment it is a block of 8 MiB."""


def keep_freed_memory(largest: int) -> None:
    """Have the C library keep freed memory for the next call: blocks of up to 8 MiB, and 16 MiB at the heap's end.

    A compiled step allocates and frees the same megabytes at each call. glibc takes blocks of 128 KiB and more from the
    system and gives them back, and gives back the end of its heap too; then the system zeroes the same pages at each
    call: up to 12 ms of a step of 32 ms. But it adapts: once a program frees such a block, blocks of that size come
    from the heap, and twice as much may lie free at its end. This frees one, which is never touched. It has to happen
    after compiling, which leaves the heap such that its end was given back at each call again. A graph with larger
    values is left alone: they would leave holes in the heap. Where another C library allocates nothing changes.

    Args:
        largest: the bytes of the largest value that the step makes, see `largest_value`.

    >>> keep_freed_memory(1024)
    """
    if largest <= _BLOCK:
        torch.empty(_BLOCK, dtype=torch.uint8)


def largest_value(gm: GraphModule) -> int:
    """Return the bytes of the largest tensor in the CPU's memory that a graph makes.

    >>> from functrain.engine.tracing.to_graph import trace
    >>> largest_value(trace(lambda x: [x.double(), x[:1].t()], [torch.ones(5, 2)]).gm)
    80
    """
    memory = Aliasing(gm.graph).memory
    own = (n for n in gm.graph.nodes if n.op == "call_function" and memory(n).op == "call_function")
    values = (n.meta.get("val") for n in own)
    return max((v.numel() * v.itemsize for v in values if _is_on_cpu(v)), default=0)


def _is_on_cpu(value: object) -> bool:
    return isinstance(value, Abstract) and value.device.type == "cpu"
