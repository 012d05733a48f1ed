"""What was predicted is checked: at the first call, each new value is compared with the layout that its trace gave it.

A difference is a fault of a rule. It is learned, and the function traced again, before anything donated was written to.
What comes after the first such write is compared ahead, on zeros.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from functrain.dispatch_contexts import as_recorded
from functrain.engine.graph.aliasing import aliases
from functrain.engine.tracing.meta.trial_run import layout_of, learn, trial_run

aten = torch.ops.aten
ROW_BY_ROW = frozenset((aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default))
"""Products, whose results PyTorch lays out row by row before a kernel runs, whatever the arguments are: on zeros they
take as long as ever, which was a sixth of the first step of a transformer."""


class Mispredicted(Exception):
    """A value is laid out another way than its trace says; it never leaves the engine.

    Attributes:
        node: the operation that made it.
        seen: what it returned.
    """

    def __init__(self, node: Node, seen: Any) -> None:
        super().__init__(f"{node} returned {layout_of(seen)}, predicted was {layout_of(node.meta['val'])}")
        self.node, self.seen = node, seen

    def learn(self) -> None:
        """Have the next trace know what the operation returns."""
        args, kwargs = torch.fx.map_arg((self.node.args, self.node.kwargs), _value)
        learn(self.node.target, args, kwargs, self.seen)


def is_predicted(node: Node) -> bool:
    """Return whether a node makes new memory, so that its layout is a prediction."""
    target: Any = node.target
    return isinstance(target, torch._ops.OpOverload) and not any(aliases(target)) and bool(target._schema.returns)


def check(node: Node, value: Any) -> None:
    """Raise `Mispredicted` where a value is not what its trace says.

    >>> from functrain.engine.tracing.to_graph import trace
    >>> node = trace(lambda x: [x.exp()], [torch.ones(2, 3)]).results[0]
    >>> check(node, torch.ones(2, 3))
    >>> check(node, torch.ones(3, 2).t())
    Traceback (most recent call last):
        ...
    functrain.engine.backends.aten.predictions.Mispredicted: exp returned Layout(shape=(2, 3), stride=(1, 2), \
dtype=torch.float32, is_conj=False, is_neg=False), predicted was Layout(shape=(2, 3), stride=(3, 1), \
dtype=torch.float32, is_conj=False, is_neg=False)
    """
    for seen, said in zip(_as_list(value), _as_list(node.meta["val"]), strict=False):
        if isinstance(said, Tensor) and not _agree(seen, said):
            raise Mispredicted(node, value)


def check_ahead(nodes: Iterable[Node]) -> None:
    """Compare operations, but for products, with what they return on zeros, where they can be run on zeros."""
    for node in nodes:
        if node.target in ROW_BY_ROW:
            continue
        args, kwargs = torch.fx.map_arg((node.args, node.kwargs), _value)
        try:
            with torch._C._DisableTorchDispatch(), as_recorded():
                seen = trial_run(node.target, args, kwargs)
        except Exception:  # values that it refuses; the call itself will tell
            continue
        check(node, seen)


def _value(node: Node) -> Any:
    return node.meta["val"]


def _as_list(value: Any) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _agree(seen: Any, said: Tensor) -> bool:
    if not isinstance(seen, Tensor) or seen.shape != said.shape or seen.dtype is not said.dtype:
        return False
    if seen.numel() == 0:
        return True
    return all(a == b or n == 1 for a, b, n in zip(seen.stride(), said.stride(), seen.shape, strict=True))
