"""Parameter groups: a transform for each part of the parameters, chosen by dotted path."""

import fnmatch
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from functrain import tree
from functrain.errors import DuplicateName, InvalidArgument
from functrain.optim.transform import Context, Transform, check_form, counter, has_updated, named

Pattern = str | Callable[[str], bool]


@tree.node
class Grouped:
    """The state of `by_path` where some group may make no update.

    Attributes:
        groups: the states of the groups, by name.
        updates: how often some group made an update, an int64 scalar.
    """

    groups: dict[str, Any]
    updates: Tensor


def by_path(groups: Mapping[Pattern, Transform]) -> Transform:
    """Return the transform that gives each parameter to the group that claims its path; each leaf has exactly one.

    A group's transform sees its own leaves alone, as a flat dict by path; so clipping inside a group is by the norm of
    that group. The state is a dict of the groups' states, or where some group may make no update a `Grouped`: an update
    of the parameters is made when some group makes one (see `updates_made`).

    Args:
        groups: a transform for each pattern of dotted paths (a shell pattern, where `*` also matches dots) or predicate
            of a path. The pattern, or the predicate's `__name__`, is the group's name: the hyperparameter "lr" of the
            group "*.bias" is called "*.bias.lr".

    Raises:
        InvalidArgument: in `init` and `update`, when a leaf is claimed by no group or by several; it names them. Or a
            group is no transform.
        DuplicateName: two predicates have one name.
        TreeMismatch: in `update`, when the gradients have not the structure and the shapes of the parameters.

    See also: `chain`, which composes one after another.

    >>> from functrain import optim
    >>> groups = by_path({"*.weight": optim.sgd(lr=0.1, weight_decay=0.5), "*.bias": optim.sgd(lr=0.2)})
    >>> params = {"0": {"weight": torch.tensor([2.0]), "bias": torch.tensor([2.0])}}
    >>> gradients = {"0": {"weight": torch.tensor([1.0]), "bias": torch.tensor([1.0])}}
    >>> groups.update(gradients, groups.init(params), params, Context())[0]
    {'0': {'weight': tensor([-0.2000]), 'bias': tensor([-0.2000])}}
    >>> sorted(groups.hypers)
    ['*.bias.lr', '*.weight.lr', '*.weight.weight_decay']
    """
    transforms, claims = _checked(groups)

    @lru_cache(
        maxsize=16
    )  # matching paths takes longer than the updates of a small model, and depends on structure alone
    def owners(structure: tree.Structure) -> tuple[tuple[str, str], ...]:
        paths = tree.paths(tree.unflatten(structure, range(structure.num_leaves)))
        return tuple(zip(_owners(paths, claims), paths, strict=True))

    def split(params: Any) -> dict[str, dict[str, Any]]:
        leaves, structure = tree.flatten(params)
        parts: dict[str, dict[str, Any]] = {name: {} for name in transforms}
        for (name, path), leaf in zip(owners(structure), leaves, strict=True):
            parts[name][path] = leaf
        return parts

    def init(params: Any) -> Any:
        parts = split(params)
        states = {name: transform.init(parts[name]) for name, transform in transforms.items()}
        return Grouped(states, counter(params)) if gated else states

    def update(updates: Any, state: Any, params: Any, context: Context) -> tuple[Any, Any]:
        check_form(updates, params, "the gradients")
        before = state.groups if gated else state
        gradients, values, states = split(updates), split(params), {}
        for name, transform in transforms.items():
            gradients[name], states[name] = transform.update(gradients[name], before[name], values[name], context)
        structure = tree.structure(updates)
        merged = tree.unflatten(structure, [gradients[name][path] for name, path in owners(structure)])
        if not gated:
            return merged, states
        used = {name: transform for name, transform in transforms.items() if values[name]}
        return merged, Grouped(states, state.updates + _some_updated(used, before, states))

    gated = any(transform.made is not None for transform in transforms.values())
    hypers = {key: hyper for name, t in transforms.items() for key, hyper in named(name, t).hypers.items()}
    return Transform(init, update, hypers, made=(lambda state: state.updates) if gated else None)


def _some_updated(transforms: Mapping[str, Transform], before: Any, after: Any) -> Tensor | int:
    happened = [has_updated(transform, before[name], after[name]) for name, transform in transforms.items()]
    if any(one is None for one in happened):
        return 1
    return torch.stack(happened).any() if happened else 0  # pyright: ignore


def _checked(groups: Mapping[Pattern, Transform]) -> tuple[dict[str, Transform], dict[str, Callable[[str], bool]]]:
    transforms: dict[str, Transform] = {}
    claims: dict[str, Callable[[str], bool]] = {}
    for pattern, transform in groups.items():
        name = pattern if isinstance(pattern, str) else getattr(pattern, "__name__", type(pattern).__name__)
        if name in transforms:
            raise DuplicateName(f"two groups are called {name!r}; give each predicate a name of its own with def")
        if not isinstance(transform, Transform):
            raise InvalidArgument(f"group {name!r} must be a Transform, got {transform!r}")
        transforms[name] = transform
        claims[name] = _matcher(pattern) if isinstance(pattern, str) else pattern
    return transforms, claims


def _matcher(pattern: str) -> Callable[[str], bool]:
    return lambda path: fnmatch.fnmatchcase(path, pattern)


def _owners(paths: list[str], claims: Mapping[str, Callable[[str], bool]]) -> list[str]:
    claimants = [[name for name, claim in claims.items() if claim(path)] for path in paths]
    wrong = [
        f"  {path}: claimed by {' and '.join(map(repr, names)) or 'no group'}"
        for path, names in zip(paths, claimants, strict=True)
        if len(names) != 1
    ]
    if wrong:
        shown = wrong if len(wrong) <= 10 else [*wrong[:9], f"  and {len(wrong) - 9} more"]
        raise InvalidArgument("\n".join(["each parameter needs exactly one group of by_path, but:", *shown]))
    return [names[0] for names in claimants]
