"""What a differentiated function returns: a value of tensors, and beside it anything."""

from collections.abc import Callable, Sequence
from typing import Any

import attrs
from torch import Tensor

from functrain import tree
from functrain.errors import InvalidArgument, NotATensor

_HERE = object()


def pair(result: Any, name: str) -> tuple[Any, Any]:
    """Return what a function returns with `has_aux`, after checking that it is a pair.

    >>> pair((1, "aux"), "grad")
    (1, 'aux')
    """
    if not isinstance(result, tuple) or len(result) != 2:
        got = f"a tuple of {len(result)}" if isinstance(result, tuple) else tree.describe(result)
        raise InvalidArgument(f"{name}: with has_aux the function must return a pair (value, aux), got {got}")
    return result


@attrs.define(eq=False)
class Returning:
    """A function as `torch.func` takes it: its value is checked, and what is beside it becomes a list of tensors.

    Attributes:
        f: the function.
        name: of the transform, for messages.
        has_aux: whether `f` returns a pair.
        backward: whether the value is to be differentiated backward, which whole numbers are not.
    """

    f: Callable
    name: str
    has_aux: bool = False
    backward: bool = True
    _spec: Any = None
    _rest: list[Any] = attrs.field(factory=list)

    def __call__(self, *args: Any) -> Any:
        result = self.f(*args)
        value, aux = pair(result, self.name) if self.has_aux else (result, None)
        _check_value(value, self.name, self.backward)
        if not self.has_aux:
            return value
        leaves, self._spec = tree.flatten(aux)
        self._rest = [_HERE if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        return value, [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def aux(self, tensors: Sequence[Tensor]) -> Any:
        """Return what stood beside the value, from its tensors."""
        remaining = iter(tensors)
        return tree.unflatten(self._spec, [next(remaining) if leaf is _HERE else leaf for leaf in self._rest])


def _check_value(value: Any, name: str, backward: bool) -> None:
    for path, leaf in [("", value)] if isinstance(value, Tensor) else tree.leaves_with_path(value):
        where = f" at {path}" if path else ""
        if not isinstance(leaf, Tensor):
            raise NotATensor(
                f"{name}: the function must return tensors, got {tree.describe(leaf)}{where}; return what is not "
                "differentiated beside them, with has_aux=True"
            )
        if backward and not (leaf.is_floating_point() or leaf.is_complex()):
            raise NotATensor(
                f"{name}: what is differentiated backward must be floating-point tensors, got {tree.describe(leaf)}"
                f"{where}; return it beside them, with has_aux=True"
            )
