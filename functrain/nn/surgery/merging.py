"""The way back from a model that was changed: its values as those of the model that it was made from."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import attrs

from functrain.errors import DuplicateName, InvalidArgument
from functrain.nn.model import Buffers, Model, Params


@attrs.frozen(eq=False)
class MadeFrom:
    """What a changed model was made from.

    Attributes:
        model: the model.
        back: (params, buffers) of the changed model -> those of that model.
    """

    model: Model
    back: Callable[[Params, Buffers], tuple[Params, Buffers]]


def origin(model: Model) -> MadeFrom | None:
    """Return what a model was made from by `freeze` or `lora`, None for any other."""
    return getattr(model.apply, "made_from", None)


def merge(model: Model, params: Params, buffers: Buffers) -> tuple[Params, Buffers]:
    """Return the values of a model changed by `freeze` or `lora` as those of the model that it was made from.

    Frozen parameters stand among the others again, and the factors of `lora` are multiplied and added to their weights.

    Args:
        model: the changed model; any other is left as it is.
        params: its parameters.
        buffers: its buffers.

    Returns:
        (params, buffers) for the first model, with the names of its `state_dict`.

    See also: `freeze`, `lora`, `to_module`.

    >>> import torch
    >>> from functrain import nn, random
    >>> model = nn.freeze(nn.serial(nn.dense(4), nn.dense(2)), "0.*")
    >>> params, buffers = model.init(random.key(0), torch.zeros(1, 3))
    >>> list(params), list(nn.to_state_dict(*merge(model, params, buffers)))
    (['1'], ['0.weight', '0.bias', '1.weight', '1.bias'])
    """
    while (source := origin(model)) is not None:
        params, buffers = source.back(params, buffers)
        model = source.model
    return params, buffers


def split(params: Params, is_chosen: Callable[[str], bool], prefix: str = "") -> tuple[Params, Params]:
    """Return the entries of nested dicts whose dotted paths are chosen, and the others.

    >>> split({"a": {"w": 1, "b": 2}}, lambda path: path == "a.w")
    ({'a': {'w': 1}}, {'a': {'b': 2}})
    """
    chosen, others = {}, {}
    for name, value in params.items():
        if isinstance(value, dict):
            inside, outside = split(value, is_chosen, f"{prefix}{name}.")
            chosen |= {name: inside} if inside else {}
            others |= {name: outside} if outside else {}
        else:
            (chosen if is_chosen(prefix + name) else others)[name] = value
    return chosen, others


def join(a: Params, b: Params) -> Params:
    """Return two nested dicts as one, in the order of the names of the first and then of the second."""
    both = {**a, **b}
    return {
        name: join(a[name], b[name]) if name in a and name in b and isinstance(a[name], dict) else value
        for name, value in both.items()
    }


def frozen_entry(model: Model) -> str:
    """Return the name of the entry of the buffers that holds what is frozen of a model, one for each change of it.

    >>> from functrain import nn
    >>> frozen_entry(nn.dense(2)), frozen_entry(nn.lora(nn.dense(2), 1))
    ('frozen', 'frozen_2')
    """
    depth = 1
    while (source := origin(model)) is not None:
        model, depth = source.model, depth + 1
    return "frozen" if depth == 1 else f"frozen_{depth}"


def with_frozen(entry: str, buffers: Buffers, frozen: Params) -> Buffers:
    """Return the buffers with an entry that holds frozen parameters."""
    if not frozen:
        return buffers
    if entry in buffers:
        raise DuplicateName(
            f"a layer has the name {entry!r}, which is where frozen parameters stand; give it another with nn.named"
        )
    return {**buffers, entry: frozen}


def without_frozen(entry: str, buffers: Buffers) -> tuple[Params, Buffers]:
    """Return the frozen parameters, and the buffers without them."""
    rest = {name: value for name, value in buffers.items() if name != entry}
    return buffers.get(entry, {}), rest


def chooser(name: str, where: Any) -> Callable[[str], bool]:
    """Return a function of dotted paths from shell patterns or a predicate."""
    if callable(where):
        return lambda path: bool(where(path))
    patterns = (where,) if isinstance(where, str) else where
    if isinstance(patterns, list | tuple) and all(isinstance(pattern, str) for pattern in patterns):
        return lambda path: any(fnmatchcase(path, pattern) for pattern in patterns)
    raise InvalidArgument(f"{name} must be a pattern of dotted paths, several, or a predicate of a path, got {where!r}")
