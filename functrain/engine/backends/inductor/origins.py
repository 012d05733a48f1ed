"""Which operations a line of Inductor's generated code does: by the comment above it, or by the name of its kernel."""

import re
from collections.abc import Callable
from typing import Any

import attrs
from torch.fx import Graph

from functrain.engine.tracing.places import MADE_BY, origin_of

_COMMENT = re.compile(r"# Topologically Sorted Source Nodes: \[(.*?)\]")
_KERNEL = re.compile(r"\b(?:cpp|triton_\w+?)_fused_(\w+?)_\d+[.(]")
_CALL = re.compile(r"^ +(?:\w+_fused_\w+[.(]|extern_kernels\.|(?:\w+ = )?torch\.ops\.)", re.MULTILINE)
_CHECKED = re.compile("index|embedding|gather|scatter|take|put|div|remainder|fmod|assert")


@attrs.frozen
class _Lines:
    """A mapping of which only `get` is asked, when something has failed: line -> what it was made of."""

    wrapper: str
    nodes: dict[str, Any]

    def get(self, line: int) -> list[Any] | None:
        """Return `origin_of` of the operations that a line does, as far as can be told."""
        lines = self.wrapper.splitlines()[:line]
        kernel = _KERNEL.search(lines[-1])
        if kernel is not None:
            return self._in_kernel(f"_{kernel[1]}_")
        above = _COMMENT.findall("\n".join(lines))
        names = above[-1].split(", ") if above else []
        return [self.nodes[name] for name in names if name in self.nodes] or None

    def _in_kernel(self, fused: str) -> list[Any] | None:
        candidates = [made for made in self.nodes.values() if f"_{made[0].strip('_')}_" in fused]
        # A kernel checks nothing but indices, and divisions of integers.
        return [made for made in candidates if _CHECKED.search(made[0])] or candidates or None


def tell_origins(call: Callable, graph: Graph) -> None:
    """Have the code of a compiled graph know where its operations come from, if it is code that was kept on disk.

    >>> tell_origins(print, Graph())
    """
    scope = getattr(getattr(call, "__func__", call), "__globals__", {})
    if "wrapper" in scope:
        scope[MADE_BY] = _Lines(
            scope["wrapper"], {n.name: origin_of(n) for n in graph.nodes if n.op == "call_function"}
        )


def kernels(call: Callable) -> int | None:
    """Return how many kernels a compiled graph calls, None where its code is not at hand.

    >>> kernels(print)
    """
    wrapper = getattr(getattr(call, "__func__", call), "__globals__", {}).get("wrapper")
    return None if wrapper is None else len(_CALL.findall(wrapper))
