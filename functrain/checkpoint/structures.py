"""Putting what was saved into a structure: by dotted path, each leaf of the same dtype and shape as the leaf there."""

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from torch import Tensor

from functrain import tree
from functrain.checkpoint.format.outlines import join
from functrain.checkpoint.format.taking_apart import children, is_scalar
from functrain.errors import InvalidArgument, TreeMismatch
from functrain.records import reprs


@attrs.frozen(repr=False)
class Anything:
    """Stands in a structure where any data may be, such as lists of a length that nobody can say before.

    Dicts, lists and tuples come back as they were. A file does not name classes, so a record comes back in the
    structure of one of `likes` that it fits, or as the one of `records` that has its fields.

    Attributes:
        records: the classes, frozen attrs ones or named tuples, of the records that may stand there.
        likes: records of which such may stand there, at any depth; so one that holds a record of a class that another
            has the same fields as comes back right.

    >>> Anything()
    Anything()
    """

    records: tuple[type, ...] = ()
    likes: tuple[Any, ...] = ()

    __repr__ = reprs.record


@attrs.frozen(repr=False)
class Optional:
    """Stands in a structure where None may be, or what is like `value`.

    >>> Optional(3)
    Optional(value=3)
    """

    value: Any

    __repr__ = reprs.record


@attrs.frozen(repr=False)
class Each:
    """Stands in a structure for a list, tuple or dict of any length, of which each item is like `value`.

    >>> Each(3)
    Each(value=3)
    """

    value: Any

    __repr__ = reprs.record


@attrs.frozen
class Static:
    """Stands for a field that belongs to the structure of a record: it is compared, and never replaced.

    >>> Static("train")
    Static(value='train')
    """

    value: Any


PATTERNS = (Anything, Optional, Each)

Leaf = Callable[[str, Any], Any]
"""(dotted path, what stands there) -> what shall stand there instead."""


def rebuild(like: Any, leaf: Leaf, path: tuple = ()) -> Any:
    """Return a structure with each of its leaves replaced; a pattern is a leaf here.

    Raises:
        InvalidArgument: something in it is neither a container, nor a tensor, nor data.

    >>> rebuild({"a": 1, "b": (2, 3)}, lambda path, value: f"{path}={value}")
    {'a': 'a=1', 'b': ('b.0=2', 'b.1=3')}
    """
    if isinstance(like, (Tensor, *PATTERNS)) or is_scalar(like):
        return leaf(join(path), like)
    parts = children(like)
    if parts is None:
        where = join(path) or "it"
        raise InvalidArgument(
            f"like: {where} must be a tensor, a number, a string, None or a container, got {type(like).__name__}; "
            "leave it out of what is saved and restored"
        )
    fixed = _static(like)
    return _container(like, [(name, _child(child, leaf, (*path, name), name in fixed)) for name, child in parts[1]])


def _child(child: Any, leaf: Leaf, path: tuple, fixed: bool) -> Any:
    return leaf(join(path), Static(child)) if fixed else rebuild(child, leaf, path)


def _static(like: Any) -> set[str]:
    fields = attrs.fields(type(like)) if attrs.has(type(like)) else ()
    return {f.name for f in fields if f.metadata.get("static")}


def records_in(*values: Any) -> tuple[type, ...]:
    """Return the classes of all records in some values, each once: what `Anything(records=...)` takes.

    >>> records_in({"a": Anything()}, [Optional(3)])
    (<class 'functrain.checkpoint.structures.Anything'>, <class 'functrain.checkpoint.structures.Optional'>)
    """
    met: dict[type, None] = {}
    for value in values:
        kind, pairs = children(value) or ("leaf", [])
        if kind == "record":
            met[type(value)] = None
        met.update(dict.fromkeys(records_in(*(child for _, child in pairs))))
    return tuple(met)


def record_of(fields: Mapping[str, Any], records: tuple[type, ...]) -> Any:
    """Return the record of these fields, of the one class that has them.

    Raises:
        TreeMismatch: none has them, or more than one; the message is the reason alone.

    >>> record_of({"value": 3}, (Anything, Optional))
    Optional(value=3)
    """
    fitting = [record for record in records if field_names(record) == set(fields)]
    if len(fitting) != 1:
        which = f"{len(fitting)} of the records" if fitting else "none of the records"
        names = ", ".join(fields) or "no fields"
        raise TreeMismatch(f"a record of {names} was saved, and {which} that may stand there has these fields")
    if hasattr(fitting[0], "_fields"):
        return fitting[0](**fields)
    aliases = {f.name: f.alias for f in attrs.fields(fitting[0])}
    return fitting[0](**{aliases[name]: value for name, value in fields.items()})


def field_names(record: type) -> set[str]:
    """Return the names of the fields that a record of a class is saved with, those of its structure among them.

    >>> sorted(field_names(Anything))
    ['likes', 'records']
    """
    if hasattr(record, "_fields"):
        return set(record._fields)  # pyright: ignore[reportAttributeAccessIssue]
    return {f.name for f in attrs.fields(record) if f.init} if attrs.has(record) else set()


def _container(like: Any, pairs: list[tuple[Any, Any]]) -> Any:
    if type(like) is dict:
        return dict(pairs)
    if isinstance(like, Mapping):
        return _mapping(like, pairs)
    if hasattr(like, "_fields"):
        return type(like)(*(child for _, child in pairs))
    if isinstance(like, (list, tuple)):
        return type(like)(child for _, child in pairs)
    changed = dict(pairs)
    aliases = {f.name: f.alias for f in attrs.fields(type(like))}
    return attrs.evolve(like, **{aliases[name]: child for name, child in changed.items()})


def _mapping(like: Any, pairs: list[tuple[Any, Any]]) -> Any:
    if not hasattr(like, "copy") or not hasattr(like, "update"):  # one that is read-only
        return dict(pairs)
    copied = like.copy()
    copied.update(pairs)
    return copied


def difference(expected: Any, saved: Any) -> str | None:
    """Return how a saved leaf differs in kind from the leaf of a structure, None where it fits.

    >>> import torch
    >>> difference(torch.ones(2), torch.ones(3)), difference(1, 2), difference(1, 2.0)
    ('expected float32(2,), saved float32(3,)', None, 'expected int, saved float')
    """
    want, have = describe_leaf(expected), describe_leaf(saved)
    return None if want == have else f"expected {want}, saved {have}"


def describe_leaf(leaf: Any) -> str:
    """Return a leaf in one word: dtype and shape of a tensor, the type of a number or a string, or None.

    >>> import torch
    >>> describe_leaf(torch.ones(2)), describe_leaf(3), describe_leaf(None)
    ('float32(2,)', 'int', 'None')
    """
    return "None" if leaf is None else tree.describe(leaf)
