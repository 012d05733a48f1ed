"""Where the memory of intermediate results comes from: not from the system anew at each call."""

import torch

_BLOCK = (1 << 23) - (1 << 13)
"""What is freed, in bytes: with its header and alignment it is a block of 8 MiB."""


def keep_freed_memory() -> None:
    """Have the C library keep freed memory for the next call: blocks of up to 8 MiB, and 16 MiB at the heap's end.

    A compiled step allocates and frees the same megabytes at each call. glibc takes blocks of 128 KiB and more from the
    system and gives them back, and gives back the end of its heap too; then the system zeroes the same pages at each
    call: up to 12 ms of a step of 32 ms. But it adapts: once a program frees such a block, blocks of that size come
    from the heap, and twice as much may lie free at its end. This frees one, which is never touched. A larger one would
    fill the heap with holes of the size of large gradients. It has to happen after compiling, which leaves the heap
    such that its end was given back at each call again. Where another C library allocates nothing changes.

    >>> keep_freed_memory()
    """
    torch.empty(_BLOCK, dtype=torch.uint8)
