"""Parameter groups: a transform for each part of the parameters, chosen by dotted path."""

import fnmatch
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from functrain import tree
from functrain.errors import DuplicateName, InvalidArgument
from functrain.optim.transform import Context, Transform, check_form, named

Pattern = str | Callable[[str], bool]


def by_path(groups: Mapping[Pattern, Transform]) -> Transform:
    """Return the transform that gives each parameter to the group that claims its path; each leaf has exactly one.

    A group's transform sees its own leaves alone, as a flat dict by path; so clipping inside a group is by the norm of
    that group. The state is a dict of the groups' states.

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

    >>> import torch
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

    def init(params: Any) -> dict[str, Any]:
        parts = split(params)
        return {name: transform.init(parts[name]) for name, transform in transforms.items()}

    def update(updates: Any, state: dict[str, Any], params: Any, context: Context) -> tuple[Any, dict[str, Any]]:
        check_form(updates, params, "the gradients")
        gradients, values, states = split(updates), split(params), {}
        for name, transform in transforms.items():
            gradients[name], states[name] = transform.update(gradients[name], state[name], values[name], context)
        structure = tree.structure(updates)
        return tree.unflatten(structure, [gradients[name][path] for name, path in owners(structure)]), states

    hypers = {key: hyper for name, t in transforms.items() for key, hyper in named(name, t).hypers.items()}
    return Transform(init, update, hypers)


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
