"""A part of a `state_dict` for a part of a model."""

from collections.abc import Callable, Mapping

import attrs
from torch import Tensor

from functrain import tree
from functrain.errors import TreeMismatch
from functrain.nn.model import Buffers, Params
from functrain.nn.state_dict import to_state_dict


@attrs.frozen
class Loaded:
    """What `load_part` did.

    Attributes:
        loaded: the names that got a value.
        kept: the names of the model that the `state_dict` has nothing for.
        left: the names of the `state_dict` that were left out.
    """

    loaded: tuple[str, ...]
    kept: tuple[str, ...]
    left: tuple[str, ...]


def load_part(
    state_dict: Mapping[str, Tensor],
    params: Params,
    buffers: Buffers,
    rename: Callable[[str], str | None] = lambda name: name,
) -> tuple[Params, Buffers, Loaded]:
    """Return parameters and buffers with the values that a `state_dict` has for them; the others stay.

    Args:
        state_dict: tensors by dotted name.
        params: nested dicts of tensors, as a model's `init` returns them.
        buffers: the same.
        rename: a function from a name in the `state_dict` to the name in the model, None to leave it out: such as
            `lambda name: None if name.startswith("head.") else name`.

    Returns:
        (params, buffers, `Loaded`): values are copied, to the dtypes and devices of the model. Nothing passed in is
        changed.

    Raises:
        TreeMismatch: a name that is not left out is not in the model, or has another shape there; or none is loaded.

    See also: `from_state_dict`, which wants all of it.

    >>> import torch
    >>> params = {"body": {"weight": torch.zeros(2)}, "head": {"weight": torch.zeros(1)}}
    >>> old = {"net.body.weight": torch.ones(2), "net.head.weight": torch.ones(5)}
    >>> params, _, report = load_part(old, params, {}, lambda name: {"net.body.weight": "body.weight"}.get(name))
    >>> params["body"]["weight"], report.kept, report.left
    (tensor([1., 1.]), ('head.weight',), ('net.head.weight',))
    """
    renamed = {name: rename(name) for name in state_dict}
    wanted = to_state_dict(params, buffers)
    values = {new: state_dict[name] for name, new in renamed.items() if new is not None}
    _check(values, wanted)

    def value(path: str, leaf: Tensor) -> Tensor:
        return values[path].detach().to(leaf.device, leaf.dtype, copy=True) if path in values else leaf

    report = Loaded(
        tuple(values),
        tuple(name for name in wanted if name not in values),
        tuple(name for name, new in renamed.items() if new is None),
    )
    return tree.map_with_path(value, params), tree.map_with_path(value, buffers), report


def _check(values: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    lines = [f"  {name} is not in the model" for name in values if name not in wanted]
    lines += [
        f"  {name}: expected {tree.describe(wanted[name])}, got {tree.describe(value)}"
        for name, value in values.items()
        if name in wanted and value.shape != wanted[name].shape
    ]
    if lines or not values:
        shown = lines if len(lines) <= 10 else [*lines[:9], f"  and {len(lines) - 9} more"]
        advice = "rename what has another name, and let rename return None for what is to be left out:"
        raise TreeMismatch("\n".join([f"load_part: the state_dict does not fit; {advice}", *(shown or ["  nothing"])]))
