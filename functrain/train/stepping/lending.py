"""What is lent to user code, which must not write to it in place, nor give it back as its own.

PyTorch counts the writes to each tensor, and two tensors of one memory have one storage.
"""

from typing import Any

import attrs
from torch import Tensor

from functrain import tree
from functrain.dispatch_state import is_plain
from functrain.engine import Stop
from functrain.engine.tracing.abstract_tensor import storage_of
from functrain.errors import SideEffect


@attrs.frozen
class Lent:
    """Tensors that somebody looks at, and how often each had been written to before.

    Attributes:
        parts: what was lent.
        tensors: its tensors.
        before: the count of each.
    """

    parts: Any
    tensors: list[Tensor]
    before: list[int]

    def writes(self) -> list[str]:
        """Return the dotted paths of what has been written to since."""
        if [tensor._version for tensor in self.tensors] == self.before:
            return []
        paths = {id(leaf): path for path, leaf in tree.leaves_with_path(self.parts)}
        pairs = zip(self.tensors, self.before, strict=True)
        return [paths.get(id(tensor)) or "a tensor" for tensor, count in pairs if tensor._version != count]


def lend(parts: Any) -> Lent:
    """Return a tree as lent from now on.

    >>> import torch
    >>> x = torch.zeros(2)
    >>> lent = lend({"x": x})
    >>> _ = x.add_(1)
    >>> lent.writes()
    ['x']
    """
    tensors = [tensor for tensor in tensors_of(parts) if not tensor.is_inference()]  # whose writes nobody counts
    return Lent(parts, tensors, [tensor._version for tensor in tensors])


def tensors_of(value: Any) -> list[Tensor]:
    """Return the tensors of a tree, in a third of the time of `tree.leaves`.

    >>> import torch
    >>> tensors_of({"x": [torch.zeros(2)], "n": 1})
    [tensor([0., 0.])]
    """
    tensors: list[Tensor] = []
    _collect(value, tensors)
    return tensors


def _collect(value: Any, tensors: list[Tensor]) -> None:
    # This runs before each handler, and after each step in plain Python.
    kind = type(value)
    if isinstance(value, Tensor):
        tensors.append(value)
        return
    if kind is dict:
        parts = value.values()
    elif kind is tuple or kind is list:
        parts = value
    elif value is None or kind in (int, float, str, bool):
        return
    elif attrs.has(kind) and hasattr(value, "__dict__"):
        parts = vars(value).values()
    else:  # a leaf, or another kind of node
        parts = [leaf for leaf in tree.leaves(value) if isinstance(leaf, Tensor)]
    for part in parts:
        _collect(part, tensors)


def check_unwritten(lent: Lent, what: str) -> None:
    """Raise `SideEffect` if a step has written to the batch that it was lent.

    >>> check_unwritten(lend((1, 2)), "its batch")
    """
    if written := lent.writes():
        raise SideEffect(
            f"a step wrote in place to {what} ({', '.join(written[:3])}), which belongs to who made it: a handler, the "
            "loss, a metric or the step itself; compute a new tensor instead"
        )


def give_back(result: Any, batch: Any, before: Any = None) -> Any:
    """Return what a step has returned, with copies of what has the memory of its batch.

    Who made the batch may fill its tensors with the next one, and has them again in the next epoch, when the loop would
    overwrite what a carry holds. In a trace, too, where a copy is made only then.

    Nobody knows the memory of an object that is no node of a tree, such as an array or a user's own record. Where the
    batch has one, all is copied but what the carry `before` the step held already.

    >>> import torch
    >>> x = torch.zeros(2)
    >>> carry, logs = give_back((x[:1], None), x)
    >>> _ = x.add_(1)
    >>> carry
    tensor([0.])
    """
    if isinstance(result, Stop):
        carry, y = give_back((result.carry, result.y), batch, before)
        return attrs.evolve(result, carry=carry, y=y)
    leaves = tree.leaves(batch)
    if is_plain() and any(is_opaque(leaf) for leaf in leaves):
        own = {id(leaf) for leaf in tree.leaves(before)}
        return tree.map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) and id(leaf) not in own else leaf, result)
    memories = {_memory(leaf) for leaf in leaves if isinstance(leaf, Tensor)} - {None}
    if memories.isdisjoint(map(_memory, tensors_of(result))):
        return result
    return tree.map(
        lambda leaf: leaf.clone() if isinstance(leaf, Tensor) and _memory(leaf) in memories else leaf, result
    )


def is_opaque(leaf: Any) -> bool:
    """Return whether a leaf of a batch may hold tensors, or the memory of some, that nobody else sees.

    >>> is_opaque(3), is_opaque("word"), is_opaque([].__iter__())
    (False, False, True)
    """
    return not isinstance(leaf, _SEEN)


_SEEN = (Tensor, int, float, complex, str, bytes, type(None))


def _memory(leaf: Any) -> int | None:
    try:
        return storage_of(leaf)
    except (NotImplementedError, RuntimeError):  # a sparse one has no storage
        return None
