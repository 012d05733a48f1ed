"""A fresh copy of a module for each application, in a fraction of the time that `copy.deepcopy` takes.

The recipe settles once what is made and how it hangs together; `fresh` then copies dicts and ties them. So whatever a
module keeps on itself while it runs is gone with the copy, and nothing of it reaches the next application.
"""

import copy
import functools
import types
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch

from functrain.errors import InvalidArgument
from functrain.nn.interop.keeping.others import begin, is_other
from functrain.nn.interop.keeping.walking import CONTAINERS, Ref, Thing, Walk, is_lazy_module

_set = object.__setattr__
_new = object.__new__


@attrs.frozen(eq=False)
class Recipe:
    """How a module is made anew.

    Attributes:
        size: how many things are made; the first is the module.
        objects: for each module or object its number, its class, and its `__dict__` without what is made anew.
        others: for each thing of which not all is in a `__dict__` or a plain container its number, its source, and its
            parts by key without what is made anew.
        containers: for each container its number, what it holds without what is made anew, and how that is copied.
        late: for each thing that is made of finished parts its number, how it is made, and what of.
        links: (number of the owner, key, number of the part).
        slots: (number of the owner, key, number of the value).
        modules: the number of each module, by its path.
    """

    size: int
    objects: list[tuple[int, type, dict[str, Any]]]
    others: list[tuple[int, Any, Any]]
    containers: list[tuple[int, Any, Callable[[Any], Any]]]
    late: list[tuple[int, Callable[..., Any], list[Ref]]]
    links: list[tuple[int, Any, int]]
    slots: list[tuple[int, Any, int]]
    modules: dict[str, int]


def recipe(walk: Walk, module: torch.nn.Module) -> Recipe:
    """Return the recipe by which what was walked is made anew."""
    numbers = {id(thing.source): number for number, thing in walk.things.items()}
    modules = {path: numbers[id(part)] for path, part in module.named_modules()}
    made = Recipe(len(walk.things), [], [], [], [], [], [], modules)
    finished: set[int] = set()
    for number, thing in walk.things.items():
        _enter(made, number, thing, finished, walk)
    return made


def _enter(made: Recipe, number: int, thing: Thing, finished: set[int], walk: Walk) -> None:
    source = thing.source
    if _is_fixed_set(thing):
        made.containers.append((number, {ref.at for ref in thing.parts}, set.copy))
        finished.add(number)
        return
    if thing.late:
        _check_finished(thing, finished, walk)
        made.late.append((number, *_maker(thing)))
        finished.add(number)
        return
    bare = [ref.at if ref.kind == "fixed" else None for ref in thing.parts]
    if is_other(source):
        made.others.append((number, source, dict(zip(thing.keys, bare, strict=True))))
    elif type(source) not in CONTAINERS:
        kind = source.cls_to_become if is_lazy_module(source) else type(source)
        made.objects.append((number, kind, dict(zip(thing.keys, bare, strict=True))))
    else:
        made.containers.append((number, _container(source, thing.keys, bare), _copier(type(source))))
    for key, ref in zip(thing.keys, thing.parts, strict=True):
        if ref.kind != "fixed":
            (made.links if ref.kind == "made" else made.slots).append((number, key, ref.at))


def _is_fixed_set(thing: Thing) -> bool:
    return type(thing.source) is set and all(ref.kind == "fixed" for ref in thing.parts)


def _container(source: Any, keys: list[Any], bare: list[Any]) -> Any:
    made = copy.copy(source)
    for key, value in zip(keys, bare, strict=True):
        made[key] = value
    return made


def _copier(kind: type) -> Callable[[Any], Any]:
    return kind.copy if hasattr(kind, "copy") else copy.copy  # pyright: ignore


def _check_finished(thing: Thing, finished: set[int], walk: Walk) -> None:
    for ref in thing.parts:
        if ref.kind == "made" and walk.things[ref.at].late and ref.at not in finished:
            raise InvalidArgument(
                f"the module holds a {type(thing.source).__name__} that holds itself by way of a "
                f"{type(walk.things[ref.at].source).__name__}; it cannot be copied: leave it out of the module"
            )


def _maker(thing: Thing) -> tuple[Callable[..., Any], list[Ref]]:
    """Return the function that makes a thing of its parts, and these."""
    source, kind = thing.source, type(thing.source)
    if kind is types.MethodType:
        return functools.partial(types.MethodType, source.__func__), thing.parts
    if kind is functools.partial:
        return lambda func, args, keywords: functools.partial(func, *args, **keywords), thing.parts
    if hasattr(source, "_fields"):
        return kind, thing.parts
    return lambda *parts: kind(parts), thing.parts


def fresh(made: Recipe, values: Sequence[Any], train: bool) -> tuple[list[Any], list[Any]]:
    """Return all that the recipe makes, by number, and for each the dict or list that holds its parts.

    Args:
        made: the recipe.
        values: the parameters and buffers by number.
        train: whether modules keep their own flag `training`; else it is False in all.
    """
    things: list[Any] = [None] * made.size
    parts: list[Any] = [None] * made.size
    for number, kind, own in made.objects:
        things[number] = thing = _new(kind)
        parts[number] = own = own.copy()
        _set(thing, "__dict__", own)
    for number, own, copied in made.containers:
        things[number] = parts[number] = copied(own)
    if made.others:
        begin(made.others, things, parts)
    for owner, key, number in made.slots:
        parts[owner][key] = values[number]
    _make_late(made, things, values)
    for owner, key, number in made.links:
        parts[owner][key] = things[number]
    if not train:
        for number in made.modules.values():
            parts[number]["training"] = False
    return things, parts


def _make_late(made: Recipe, things: list[Any], values: Sequence[Any]) -> None:
    for number, make, refs in made.late:
        of = [things[r.at] if r.kind == "made" else values[r.at] if r.kind == "value" else r.at for r in refs]
        things[number] = make(*of)
