"""Parameter groups: a transform for each part of the parameters, chosen by dotted path or by a predicate."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from functrain import tree
from functrain.engine.tracing.recording import is_recorded
from functrain.optim.context import Context, Examples
from functrain.optim.counting import has_updated
from functrain.optim.shapes import check_gradients, counter
from functrain.optim.stepping import step
from functrain.optim.transform import Transform, check_transform, named, primitive_of
from functrain.optim.wrappers.claiming import Where, claims

Parts = dict[str, dict[str, Any]]
"""The leaves of each group by path, by the groups' names."""

STILL = "still"
"""The primitive that moves nothing, so that no call of it is an update."""


@tree.node
class Partitioned:
    """The state of `partition` where some group may make no update.

    Attributes:
        groups: the states of the groups, by name.
        updates: how often some group made an update, an int64 scalar.
    """

    groups: dict[str, Any]
    updates: Tensor


def partition(transforms: Mapping[str, Transform], where: Mapping[str, Where]) -> Transform:
    """Return the transform that gives each parameter to the group that claims it; each leaf belongs to exactly one.

    A group's transform sees its own leaves alone, as a flat dict by path; so clipping inside a group is by the norm of
    that group. The state is a dict of the groups' states, or where some group may make no update a `Partitioned`: an
    update of the parameters is made when some group makes one (see `updates_made`).

    Args:
        transforms: a transform for each group, by the group's name: the hyperparameter "lr" of the group "bias" is
            called "bias.lr".
        where: what each group claims, by name: a shell pattern of dotted paths (`*` also matches dots), several of
            them, a predicate of (path, leaf), which may look at a leaf's shape and dtype and not at its values, or
            `...` for the rest.

    Raises:
        InvalidArgument: the names of both differ, a group is no transform, or two groups claim the rest. In `init` and
            `update`: a leaf is claimed by no group or by several, or a pattern matches nothing; it names them.
        TreeMismatch: in `update`, when the gradients have not the structure and the shapes of the parameters.

    See also: `chain`, which composes one after another; `freeze`, which leaves some parameters as they are.

    >>> import torch
    >>> from functrain import optim
    >>> groups = partition(
    ...     {"decayed": optim.sgd(lr=0.1, weight_decay=0.5), "others": optim.sgd(lr=0.2)},
    ...     {"decayed": "*.weight", "others": ...},
    ... )
    >>> params = {"0": {"weight": torch.tensor([2.0]), "bias": torch.tensor([2.0])}}
    >>> gradients = {"0": {"weight": torch.tensor([1.0]), "bias": torch.tensor([1.0])}}
    >>> groups.update(gradients, groups.init(params), params)[0]
    {'0': {'weight': tensor([-0.2000]), 'bias': tensor([-0.2000])}}
    >>> sorted(groups.hypers)
    ['decayed.lr', 'decayed.weight_decay', 'others.lr']
    """
    owners = claims(transforms, where)
    for name, transform in transforms.items():
        check_transform(transform, f"group {name!r} of partition")
    counted = [name for name, transform in transforms.items() if not _is_still(transform)]
    gated = any(transforms[name].made is not None for name in counted)

    def init(params: Any) -> Any:
        parts = _split(params, owners(params), transforms)
        states = {name: transform.init(parts[name]) for name, transform in transforms.items()}
        return Partitioned(states, counter(params)) if gated else states

    def by_group(f: Callable[..., tuple], updates: Any, state: Any, params: Any, context: Context) -> tuple[Any, Any]:
        check_gradients(updates, params)
        owned = owners(params)
        gradients = _split(tree.map(lambda p, g: g, params, updates), owned, transforms)  # in the parameters' order
        values, before = _split(params, owned, transforms), state.groups if gated else state
        seen = {name: _of_group(name, t, context, params, owned) for name, t in transforms.items()}
        done = {name: f(t, gradients[name], before[name], values[name], seen[name]) for name, t in transforms.items()}
        merged = tree.unflatten(tree.structure(params), [done[name][0][path] for name, path in owned])
        after = {name: state for name, (_, state) in done.items()}
        if not gated:
            return merged, after
        used = {name: transforms[name] for name in counted if values[name]}
        return merged, Partitioned(after, state.updates + _some_updated(used, before, after))

    return Transform(
        init,
        partial(by_group, Transform.update),
        {key: hyper for name, t in transforms.items() for key, hyper in named(name, t).hypers.items()},
        fused=partial(by_group, step),
        made=(lambda state: state.updates) if gated else None,
        needs=tuple(need for transform in transforms.values() for need in transform.needs),
        label=lambda: f"partition({', '.join(f'{name}={t!r}' for name, t in transforms.items())})",
        pieces=dict(transforms),
    )


def _is_still(transform: Transform) -> bool:
    primitive = primitive_of(transform)
    return primitive is not None and primitive.name == STILL


def _split(params: Any, owned: Iterable[tuple[str, str]], names: Iterable[str]) -> Parts:
    parts: Parts = {name: {} for name in names}
    for (name, path), leaf in zip(owned, tree.leaves(params), strict=True):
        parts[name][path] = leaf
    return parts


def _of_group(
    name: str, transform: Transform, context: Context, params: Any, owned: Sequence[tuple[str, str]]
) -> Context:
    """Return the context as a group sees it: what it evaluates is its own part of the parameters."""
    if "examples" in transform.needs and context.examples is not None:
        context = tree.evolve(context, examples=_examples_of(name, context.examples, params, owned))
    whole = context.evaluate
    if "evaluate" not in transform.needs or whole is None:
        return context
    leaves, structure = tree.flatten(params)

    def evaluate(part: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        # Clones in a trace, for the same reason as in `hutchinson`: what is closed over inside of `cond`.
        others = [leaf.clone() for leaf in leaves] if is_recorded() else leaves
        here = [part[path] if owner == name else leaf for (owner, path), leaf in zip(owned, others, strict=True)]
        loss, grads = whole(tree.unflatten(structure, here))
        grads = tree.map(lambda p, g: g, params, grads)  # in the parameters' order
        return loss, _split(grads, owned, dict.fromkeys(owner for owner, _ in owned)).get(name, {})

    return tree.evolve(context, evaluate=evaluate)


def _examples_of(name: str, examples: Examples, params: Any, owned: Sequence[tuple[str, str]]) -> Examples:
    groups = dict.fromkeys(owner for owner, _ in owned)

    def part(values: Any) -> Any:
        return _split(tree.map(lambda p, g: g, params, values), owned, groups).get(name, {})

    return Examples(part(examples.grads), examples.count, part(examples.mean))


def _some_updated(transforms: Mapping[str, Transform], before: Any, after: Any) -> Tensor | int:
    happened = [has_updated(transform, before[name], after[name]) for name, transform in transforms.items()]
    if any(one is None for one in happened):
        return 1
    return torch.stack(happened).any() if happened else 0  # pyright: ignore
