"""A guard for functions that run inside an `autograd.Function`: what they close over would get no gradient."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from functrain import tree
from functrain.dispatch_state import current_level, level
from functrain.engine.tracing.modes.staying_modes import StayingMode
from functrain.errors import InvalidArgument

LOST = (
    "closes over a tensor that is being differentiated or vmapped; its gradient would be lost: pass it as an argument"
)


class ClosuresRefused(StayingMode):
    """The mode that refuses tensors that are being differentiated or vmapped and are no arguments.

    Args:
        name: of the function, for the message.
        arguments: its arguments.
    """

    def __init__(self, name: str, arguments: Sequence[Tensor]):
        super().__init__()
        self.name = name
        self.own = {id(t): t for t in arguments}
        self.begun = torch.autograd._get_sequence_nr()  # pyright: ignore

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Let a function run, or refuse."""
        running = current_level()
        for leaf in tree.leaves((args, kwargs or {})):
            if isinstance(leaf, Tensor) and (level(leaf) > running or self._is_recorded(leaf)):
                raise InvalidArgument(f"{self.name} {LOST}")
        return self._note(self.pass_on(func, types, args, kwargs))

    def _note(self, made: Any) -> Any:
        # A view of an argument requires gradients as that does, also where none are recorded.
        if torch.is_grad_enabled():
            return made
        if isinstance(made, Iterator):  # what `for row in tensor` asks for
            made = list(made)
            return iter(self._note(made))
        views = made if isinstance(made, list | tuple) else [made]
        self.own.update((id(t), t) for t in views if isinstance(t, Tensor) and t.requires_grad)
        return made

    def swap(self, tensor: Tensor) -> Tensor:
        """Return the tensor itself."""
        return tensor

    def _is_recorded(self, leaf: Tensor) -> bool:
        # What the function computes itself is not, as its forward pass runs without gradients, but for those inside.
        if level(leaf) >= 0 or not leaf.requires_grad or torch.is_grad_enabled() or id(leaf) in self.own:
            return False
        return leaf.grad_fn is None or leaf.grad_fn._sequence_nr() < self.begun  # pyright: ignore
