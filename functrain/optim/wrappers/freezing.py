"""Some parameters stay as they are, or their gradients do."""

from functools import partial
from typing import Any

import attrs

from functrain import tree
from functrain.optim.transform import Transform, as_primitive, check_transform, identity
from functrain.optim.wrappers.claiming import Where, check_where
from functrain.optim.wrappers.partitioning import STILL, partition


def freeze(where: Where, transform: Transform | None = None) -> Any:
    """Return the transform that leaves some parameters as they are, whatever their gradients hold, NaN included.

    The transform inside does not see them: no state is kept for them, they do not count in the norm of a clip, and they
    do not decay. So put the whole optimizer inside.

    Args:
        where: which: a shell pattern of dotted paths (`*` also matches dots), several of them, or a predicate of
            (path, leaf).
        transform: what the others are given to; without it, a function that takes one is returned.

    Returns:
        A `Transform`; or without one, the function that makes it of one.

    Raises:
        InvalidArgument: `where` is none of these, or the transform is none. In `init` and `update`, a pattern matches
            nothing.

    See also: `partition`; `tree.filter`, with which a model can be differentiated by some parameters alone.

    >>> import torch
    >>> from functrain import optim
    >>> head = freeze("0.*", optim.adam(lr=0.5))
    >>> params = {"0": {"weight": torch.ones(1)}, "1": {"weight": torch.ones(1)}}
    >>> gradients = {"0": {"weight": torch.tensor([float("nan")])}, "1": {"weight": torch.ones(1)}}
    >>> head.update(gradients, head.init(params), params)[0]
    {'0': {'weight': tensor([0.])}, '1': {'weight': tensor([-0.5000])}}
    """
    if transform is None:
        return partial(freeze, where)
    return _of_some("freeze", where, transform, {"frozen": _still, "trained": transform})


def masked(where: Where, transform: Transform | None = None) -> Any:
    """Return the transform that sees some parameters alone; what comes in for the others goes out as it is.

    So it is for a piece of a chain: weight decay of the matrices alone, say. In an optimizer that ends with its
    learning rate, the raw gradients of the others would be *added* to them; there `freeze` or `partition` is meant.

    Args:
        where: which: a shell pattern of dotted paths (`*` also matches dots), several of them, or a predicate of
            (path, leaf).
        transform: what they are given to; without it, a function that takes one is returned.

    Returns:
        A `Transform`; or without one, the function that makes it of one.

    Raises:
        InvalidArgument: `where` is none of these, or the transform is none. In `init` and `update`, a pattern matches
            nothing.

    >>> import torch
    >>> from functrain import optim
    >>> decay = masked("*.weight", optim.add_decayed_weights(0.5))
    >>> params = {"0": {"weight": torch.ones(1), "bias": torch.ones(1)}}
    >>> decay.update(params, decay.init(params), params)[0]
    {'0': {'weight': tensor([1.5000]), 'bias': tensor([1.])}}
    """
    if transform is None:
        return partial(masked, where)
    return _of_some("masked", where, transform, {"seen": transform, "others": identity})


def _of_some(word: str, where: Where, transform: Transform, groups: dict[str, Transform]) -> Transform:
    """Return the partition of the parameters that are meant, the first group, and the rest, called by this word."""
    check_transform(transform)
    check_where(word, where)
    chosen, others = groups
    return attrs.evolve(
        partition(groups, {chosen: where, others: ...}),
        hypers=transform.hypers,
        label=lambda: f"{word}({getattr(where, '__name__', repr(where))}, {transform!r})",
    )


# Not 0 times the gradient, which is NaN where the gradient is. `partition` counts no updates of it.
_still = as_primitive(
    STILL,
    Transform(
        init=lambda params: (),
        update=lambda updates, state, params, context: (tree.zeros_like(updates), state),
        fused=lambda updates, state, params, context: (params, state),
    ),
    {},
)
