"""Which group claims which leaf."""

import fnmatch
from collections.abc import Callable, Collection, Mapping, Sequence
from types import EllipsisType
from typing import Any

from torch import Tensor

from functrain import tree
from functrain.errors import InvalidArgument
from functrain.optim.ordering import own_paths

Where = str | Sequence[str] | Callable[[str, Any], bool] | EllipsisType
"""What a group claims: patterns of dotted paths, a predicate of (path, leaf), or `...` for the rest."""

Owners = tuple[tuple[str, str], ...]
"""The name of the group and the path of each leaf."""


def claims(groups: Collection[str], where: Mapping[str, Where]) -> Callable[[Any], Owners]:
    """Return the function params -> the owner and the path of each leaf, after checking what the groups claim.

    >>> import torch
    >>> claims(["a", "b"], {"a": "*.bias", "b": ...})({"0": {"weight": torch.ones(1), "bias": torch.ones(1)}})
    (('b', '0.weight'), ('a', '0.bias'))
    """
    _check_names(groups, where)
    for name, claim in where.items():
        check_where(f"group {name!r}", claim)
    rest = [name for name, claim in where.items() if claim is ...]
    if len(rest) > 1:
        raise InvalidArgument(f"only one group can claim the rest (...), but {' and '.join(map(repr, rest))} do")

    # Matching paths takes longer than the updates of a small model, and depends on structure, shapes and dtypes alone.
    seen: dict[Any, Owners] = {}

    def owners(params: Any) -> Owners:
        leaves, structure = tree.flatten(params)
        if not all(isinstance(leaf, Tensor) for leaf in leaves):
            tree.check_tensors(params, "the parameters")
        key = structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        if key not in seen:
            if len(seen) >= MOST_KEPT:
                seen.clear()
            paths = own_paths(tree.paths(tree.unflatten(structure, range(len(leaves)))))
            seen[key] = _owners(where, rest, list(zip(paths, leaves, strict=True)))
        return seen[key]

    return owners


MOST_KEPT = 16


def check_where(what: str, where: Any) -> None:
    """Raise `InvalidArgument` unless something says which leaves are meant; `what` names it in the message.

    >>> check_where("freeze", ["*.weight", "*.bias"])
    """
    patterns = [where] if isinstance(where, str) else where
    if (
        callable(where)
        or where is ...
        or (isinstance(patterns, Sequence) and patterns and all(isinstance(pattern, str) for pattern in patterns))
    ):
        return
    raise InvalidArgument(
        f"{what} must claim a pattern of dotted paths, a list of such, a predicate of (path, leaf), or ... for the "
        f"rest; got {where!r}"
    )


def _check_names(groups: Collection[str], where: Mapping[str, Where]) -> None:
    unclaimed = [name for name in groups if name not in where]
    unknown = [name for name in where if name not in groups]
    if unclaimed or unknown:
        raise InvalidArgument(
            "partition needs a transform and a claim for each group, but "
            + "; ".join(
                f"{', '.join(map(repr, names))} {'has' if len(names) == 1 else 'have'} no {what}"
                for names, what in ((unclaimed, "claim"), (unknown, "transform"))
                if names
            )
        )


def _owners(where: Mapping[str, Where], rest: list[str], leaves: list[tuple[str, Any]]) -> Owners:
    _check_patterns(where, [path for path, _ in leaves])
    claimants = []
    for path, leaf in leaves:
        names = [name for name, claim in where.items() if claim is not ... and _claims(claim, path, leaf)]
        claimants.append((path, names or rest))
    wrong = [
        f"  {path}: claimed by {' and '.join(map(repr, names)) or 'no group'}"
        for path, names in claimants
        if len(names) != 1
    ]
    if wrong:
        shown = wrong if len(wrong) <= 10 else [*wrong[:9], f"  and {len(wrong) - 9} more"]
        raise InvalidArgument("\n".join(["each parameter needs exactly one group, but:", *shown]))
    return tuple((names[0], path) for path, names in claimants)


def _claims(claim: Any, path: str, leaf: Any) -> bool:
    if callable(claim):
        return bool(claim(path, leaf))
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in _patterns(claim))


def _patterns(claim: Any) -> list[str]:
    if callable(claim) or claim is ...:
        return []
    return [claim] if isinstance(claim, str) else list(claim)


def _check_patterns(where: Mapping[str, Where], paths: list[str]) -> None:
    for name, claim in where.items():
        for pattern in _patterns(claim):
            if paths and not fnmatch.filter(paths, pattern):
                shown = ", ".join(paths[:10]) + (f" and {len(paths) - 10} more" if len(paths) > 10 else "")
                raise InvalidArgument(
                    f"the pattern {pattern!r} of group {name!r} matches no parameter; there are {shown}"
                )
