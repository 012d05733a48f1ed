"""The model: a pair of pure functions."""

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import attrs
from torch import Tensor

from functrain.errors import InvalidArgument
from functrain.records import pickling, reprs, showing
from functrain.schedule import Hyper

Params = dict[str, Any]
Buffers = dict[str, Any]


# Compared by identity: two models are never the same because their functions happen to be.
@attrs.frozen(eq=False, repr=False)
class Model:
    """A model, or a layer: they are the same thing. Two pure functions and what is known about them.

    Attributes:
        init: (key, example) -> (params, buffers), nested dicts of tensors, from an example batch of at least one row.
            A layer without parameters has an empty dict, and no entry in the dict of the model that it is part of.
        apply: (params, buffers, x, mode=evaluation()) -> (y, buffers), always this pair. Nothing is ever mutated.
        hypers: the hyperparameters of the layers by dotted path, such as {"1.rate": 0.5}.
        name: the name it has as part of another model, set by `named`; None for its position.
        label: what it is called in its repr and in messages, such as "dense(10)".

    See also: `layer` and `stateful_layer`, which make one of a short formula, and `composite`, of named children.

    >>> import torch
    >>> from functrain import nn, random
    >>> model = nn.serial(nn.dense(3), torch.relu, head=nn.dense(2))
    >>> model
    serial(dense(3), relu, head=dense(2))
    >>> params, buffers = model.init(random.key(0), torch.zeros(1, 4))
    >>> y, buffers = model.apply(params, buffers, torch.zeros(8, 4))
    """

    init: Callable[[Tensor, Any], tuple[Params, Buffers]]
    apply: Callable[..., tuple[Any, Buffers]]
    hypers: Mapping[str, Hyper] = attrs.field(factory=dict)
    name: str | None = None
    label: str = "Model"

    def __repr__(self) -> str:
        return self.label

    def _repr_html_(self) -> str:
        hypers = [f"{path}: {hyper!r}" for path, hyper in self.hypers.items()]
        return showing.html_lines("\n".join([reprs.indent(self.label), *hypers]))

    __reduce_ex__ = pickling.reduce
    __copy__ = __deepcopy__ = pickling.itself

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise: a model is a pair of functions, and holds no parameters that a call could use."""
        raise InvalidArgument(
            f"a model is not called, it has no parameters of its own: y, buffers = model.apply(params, buffers, x) "
            f"with those of model.init(key, x), where model is {self.label}"
        )
