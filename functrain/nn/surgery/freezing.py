"""Parameters that are not trained."""

from collections.abc import Callable, Sequence
from typing import Any

import attrs
from torch import Tensor

from functrain import tree
from functrain.errors import InvalidArgument
from functrain.nn.functions import as_model
from functrain.nn.mode import EVALUATION, Mode
from functrain.nn.model import Buffers, Model, Params
from functrain.nn.surgery.merging import MadeFrom, chooser, frozen_entry, join, split, with_frozen, without_frozen


def freeze(model: Model, where: str | Sequence[str] | Callable[[str], bool]) -> Model:
    """Return the model with some of its parameters not trained: they stand among the buffers, as the entry "frozen".

    So no gradient is computed for them, no optimizer sees them, and they are saved and loaded with the rest.

    Args:
        model: any model.
        where: a pattern of dotted paths (`*` stands for any characters, dots too), several, or a predicate of a path.

    Raises:
        InvalidArgument: where is none of these; at `init`, it matches no parameter, or all.
        DuplicateName: at `init`, a layer has the name "frozen".

    See also: `merge`, the way back; `lora`.

    >>> import torch
    >>> from functrain import nn, random
    >>> model = freeze(nn.serial(body=nn.dense(4), head=nn.dense(2)), "body.*")
    >>> params, buffers = model.init(random.key(0), torch.zeros(1, 3))
    >>> list(params), list(buffers["frozen"])
    (['head'], ['body'])
    """
    model = as_model("model", model)
    is_frozen, entry = chooser("where", where), frozen_entry(model)

    def init(key: Tensor, example: Any) -> tuple[Params, Buffers]:
        params, buffers = model.init(key, example)
        frozen, trained = split(params, is_frozen)
        if not frozen or not trained:
            what = "all parameters" if frozen else "no parameter"
            shown = ", ".join(tree.paths(params)[:10])
            raise InvalidArgument(f"freeze: where matches {what}; their paths are {shown:.600}")
        return trained, with_frozen(entry, buffers, frozen)

    def back(params: Params, buffers: Buffers) -> tuple[Params, Buffers]:
        frozen, rest = without_frozen(entry, buffers)
        return join(frozen, params), rest

    def apply(params: Params, buffers: Buffers, x: Any, mode: Mode = EVALUATION) -> tuple[Any, Buffers]:
        frozen, rest = without_frozen(entry, buffers)
        y, after = model.apply(join(frozen, params), rest, x, mode)
        return y, buffers if after is rest else with_frozen(entry, after, frozen)

    apply.made_from = MadeFrom(model, back)  # pyright: ignore
    return attrs.evolve(model, init=init, apply=apply)
