"""A write made a value: an operation that changes its arguments, done to private copies of their memory.

The node of a graph with such a target takes the memory to be changed as arguments and returns it changed, new. The
kernel, the strides it works on and so its bits are those of the write. A plan may leave out the copy where nobody reads
that memory any more.
"""

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.engine.tracing.meta.geometry import is_dense


@attrs.frozen
class View:
    """How an operand is seen in one of the memories.

    Attributes:
        memory: which memory.
        steps: (operation, its arguments after the first, keywords) from the whole memory to the operand.
    """

    memory: int
    steps: tuple[tuple[Callable, tuple, dict], ...] = ()

    def of(self, memories: Sequence[Tensor]) -> Tensor:
        """Return the operand."""
        tensor: Any = memories[self.memory]
        for operation, rest, kwargs in self.steps:
            tensor = operation(tensor, *rest, **kwargs)
        return tensor


@attrs.frozen
class Operand:
    """An operand that is an argument of the node of its own: its position after the memories."""

    position: int


@attrs.frozen(eq=False, slots=False)
class InPlace:
    """The target of a node: (*memories, *operands) -> (*memories changed, *what the operation returns that is new).

    Attributes:
        operation: what writes.
        count: the number of memories.
        args: its arguments, with a `View` or an `Operand` for each tensor.
        kwargs: further ones.
        new: which of its results are new tensors; None where its one result is.
        owned: which memories are changed themselves and not copied first.
    """

    operation: Any
    count: int
    args: tuple
    kwargs: dict
    new: tuple[int, ...] | None = ()
    owned: frozenset[int] = frozenset()

    returns_new_memory = True

    def __attrs_post_init__(self) -> None:
        # What the code generator of torch.fx wants of a function.
        name = f"in_place_{self.operation._opname}_{id(self)}"
        vars(self).update(__name__=name, __qualname__=name, __module__=__name__)

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        memories = [t if k in self.owned else duplicate(t) for k, t in enumerate(tensors[: self.count])]
        operands = tensors[self.count :]
        out = self.operation(*_fill(self.args, memories, operands), **_fill(self.kwargs, memories, operands))
        return *memories, *((out,) if self.new is None else (out[k] for k in self.new))

    def seen(self, tensors: Sequence[Any], value: Callable[[Any], Tensor]) -> tuple:
        """Return the arguments of the operation: of its operands what stands for them, of its views what they show."""
        return _fill(self.args, [value(one) for one in tensors[: self.count]], tuple(tensors[self.count :]))

    def functionally(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the same with copies that transforms of `torch.func` can make too."""
        copies = [_copy_alike(t) for t in tensors[: self.count]]
        return attrs.evolve(self, owned=frozenset(range(self.count)))(*copies, *tensors[self.count :])


def _fill(value: Any, memories: list[Tensor], operands: tuple[Tensor, ...]) -> Any:
    if isinstance(value, View):
        return value.of(memories)
    if isinstance(value, Operand):
        return operands[value.position]
    if isinstance(value, (list, tuple)):
        return type(value)(_fill(v, memories, operands) for v in value)
    return {k: _fill(v, memories, operands) for k, v in value.items()} if isinstance(value, dict) else value


def _copy_alike(tensor: Tensor) -> Tensor:
    # A copy made by `clone` has no gaps, and views by `as_strided` would show other elements of it.
    if is_dense(tensor) or 0 in tensor.stride():
        return tensor.clone()
    return tensor.new_empty_strided(tensor.shape, tensor.stride()).copy_(tensor)


def duplicate(tensor: Tensor) -> Tensor:
    """Return a copy of the same strides, but of a tensor whose elements overlap one in which they do not.

    >>> duplicate(torch.ones(2, 3).t()).stride()
    (1, 3)
    """
    if 0 in tensor.stride() and tensor.numel() > 1:
        return tensor.clone()
    made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)
    return made.copy_(tensor)
