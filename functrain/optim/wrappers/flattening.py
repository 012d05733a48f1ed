"""Flattening: the transform inside sees one vector instead of many arrays."""

from functools import partial
from typing import Any

import torch

from functrain import tree
from functrain.optim.context import Context
from functrain.optim.ordering import ordered_leaves, refill
from functrain.optim.shapes import check_gradients, check_kinds, check_trainable
from functrain.optim.stepping import step
from functrain.optim.transform import Transform, check_transform


def flatten(transform: Transform) -> Transform:
    """Return the transform that lets another one see all parameters of a dtype as one vector.

    So an update of many small arrays is a few operations; for large ones copying costs more than it saves. What works
    element by element, or over all of them, gives the same; what works on each array, such as LAMB's trust ratio,
    does not. The state has the shape of the vectors, by the name of the dtype.

    Args:
        transform: the transform inside; it chooses nothing by path.

    Raises:
        InvalidArgument: the transform is none.
        DtypeMismatch: in `init`, a parameter is neither floating-point nor complex.
        TreeMismatch: in `update`, when the gradients have not the structure and the shapes of the parameters.

    >>> from functrain import optim
    >>> fast = flatten(optim.sgd(lr=0.5, momentum=0.9))
    >>> params = {"w": torch.ones(2, 1), "b": torch.ones(1)}
    >>> fast.update(params, fast.init(params), params)
    ({'w': tensor([[-0.5000],
            [-0.5000]]), 'b': tensor([-0.5000])}, ({'buffer': {'float32': tensor([1., 1., 1.])}}, ()))
    """
    check_transform(transform)

    def through(f: Any, updates: Any, state: Any, params: Any, context: Context) -> tuple[Any, Any]:
        check_gradients(updates, params)
        check_kinds(updates, params)  # as casting would leave out what is imaginary
        in_order = tree.map(lambda p, g: g.to(p.dtype), params, updates)
        flat, state = f(transform, _vectors(in_order), state, _vectors(params), _flat_evaluate(context, params))
        return _arrays(flat, params), state

    def init(params: Any) -> Any:
        check_trainable(params)  # by path, which the vectors have not
        return transform.init(_vectors(params))

    return Transform(
        init,
        partial(through, Transform.update),
        transform.hypers,
        fused=partial(through, step),
        made=transform.made,
        needs=transform.needs,
        label=lambda: f"flatten({transform!r})",
    )


def _vectors(arrays: Any) -> dict[str, torch.Tensor]:
    by_dtype: dict[str, list[torch.Tensor]] = {}
    for leaf in ordered_leaves(arrays):
        by_dtype.setdefault(_name(leaf), []).append(leaf.reshape(-1))
    return {name: torch.cat(leaves) for name, leaves in by_dtype.items()}


def _arrays(vectors: dict[str, torch.Tensor], like: Any) -> Any:
    sizes: dict[str, list[int]] = {}
    leaves = ordered_leaves(like)
    for leaf in leaves:
        sizes.setdefault(_name(leaf), []).append(leaf.numel())
    # Clones, because pieces of one vector would share its memory.
    pieces = {name: iter(vectors[name].split(each)) for name, each in sizes.items()}
    return refill(like, [next(pieces[_name(leaf)]).reshape(leaf.shape).clone() for leaf in leaves])


def _flat_evaluate(context: Context, like: Any) -> Context:
    evaluate = context.evaluate
    if evaluate is None:
        return context

    def flat(vectors: Any) -> tuple[torch.Tensor, Any]:
        loss, grads = evaluate(_arrays(vectors, like))
        return loss, _vectors(grads)

    return tree.evolve(context, evaluate=flat)


def _name(leaf: torch.Tensor) -> str:
    return str(leaf.dtype).removeprefix("torch.")
