"""What a module is made of: a walk through all that hangs on it, and what of that each application must have anew.

Anew are modules, plain containers, objects of Python classes, and whatever holds one of these (a bound method, a
`partial`, a tuple). Functions, classes, numbers, tensors and what C made are taken as they are.
"""

import collections
import copyreg
import enum
import functools
import types
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn.modules.lazy import LazyModuleMixin

from functrain.engine.statics.library import is_opaque
from functrain.nn.interop.keeping.generators import Watched, watch

CONTAINERS: tuple[type, ...] = (dict, list, set, collections.OrderedDict, collections.defaultdict, collections.deque)
"""Containers that are copied part by part; those of other classes are taken as they are."""
_HEAP_TYPE = 1 << 9
_ATOMS = (type, types.ModuleType, types.FunctionType, enum.Enum, torch.Generator, BaseException)


@attrs.frozen
class Ref:
    """What stands for a part in what is walked: "made" anew, a "value" passed in, or one that is "fixed".

    Attributes:
        kind: "made", "value" or "fixed".
        at: the number of the thing made, or of the value; what is fixed itself.
    """

    kind: str
    at: Any


@attrs.frozen
class Thing:
    """One thing that is made anew.

    Attributes:
        source: the thing that was walked.
        keys: the keys of its parts: names, keys or positions.
        parts: a `Ref` for each.
        late: whether it cannot be changed, and is so made when its parts are there.
    """

    source: Any
    keys: list[Any]
    parts: list[Ref]
    late: bool


class Walk:
    """A walk from a module through all that hangs on it.

    Args:
        module: where it begins.
        value: tensor -> its number among the values passed in, or None for any other.
        fixed: (tensor, its path) -> what stands for a tensor that is no such value.

    Attributes:
        things: what is made anew; the first is the module.
        functions: the functions and classes met, on which the result depends too.
        generators: the generators of Python's and NumPy's met, which no key reproduces.
    """

    def __init__(
        self, module: torch.nn.Module, value: Callable[[Tensor], int | None], fixed: Callable[[Tensor, str], Any]
    ) -> None:
        self._value, self._fixed = value, fixed
        self._numbers: dict[int, Ref] = {}
        self._things: dict[int, Thing] = {}  # in the order in which they were finished
        self._alive: list[Any] = []
        self.functions: dict[int, Any] = {}
        self.generators: dict[int, Watched] = {}
        self._ref(module, "")

    @property
    def things(self) -> dict[int, Thing]:
        """The things by number, parts before what they are parts of (but where they hold each other)."""
        return self._things

    def _ref(self, thing: Any, path: str) -> Ref:
        if isinstance(thing, Tensor):
            number = self._value(thing)
            return Ref("fixed", self._fixed(thing, path)) if number is None else Ref("value", number)
        if id(thing) in self._numbers:
            return self._numbers[id(thing)]
        if isinstance(thing, (types.FunctionType, type)):
            self.functions[id(thing)] = thing
        way = _way(thing)
        if way is None:
            watched = watch(thing, path.replace("_modules.", ""))
            if watched is not None:
                self.generators[id(thing)] = watched
            return Ref("fixed", thing)
        return self._make(thing, path, *way)

    def _make(self, thing: Any, path: str, parts: dict[Any, Any], late: bool) -> Ref:
        ref = self._numbers[id(thing)] = Ref("made", len(self._numbers))
        self._alive.append((thing, parts))
        self.functions.setdefault(id(type(thing)), type(thing))
        bare = _hooks(thing)
        refs = [
            Ref("fixed", type(part)()) if key in bare else self._ref(part, f"{path}.{key}" if path else str(key))
            for key, part in parts.items()
        ]
        self._things[ref.at] = Thing(thing, list(parts), refs, late)
        return ref


def _way(thing: Any) -> tuple[dict[Any, Any], bool] | None:
    """Return the parts of a thing by key and whether it is made late, or None for what is taken as it is."""
    kind = type(thing)
    if kind in CONTAINERS or base_of(kind) is not None:
        return _parts_of_container(thing), kind is set
    if isinstance(thing, tuple | frozenset):
        return (dict(enumerate(thing)), True) if any(_way(part) or isinstance(part, Tensor) for part in thing) else None
    if kind is types.MethodType:
        return {"__self__": thing.__self__}, True
    if kind is functools.partial:
        return {"func": thing.func, "args": thing.args, "keywords": thing.keywords}, True
    if isinstance(thing, torch.nn.Module) or _is_plain_object(thing):
        return _attributes(thing), False
    return None


def base_of(kind: type) -> type | None:
    """Return dict or list for a class in Python that is one with methods of its own, None for any other.

    >>> base_of(collections.Counter), base_of(dict)
    (<class 'dict'>, None)
    """
    if not kind.__flags__ & _HEAP_TYPE or issubclass(kind, (collections.OrderedDict, collections.defaultdict)):
        return None
    return next((base for base in (dict, list) if issubclass(kind, base)), None)


CALLED = frozenset({"_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"})
"""What a forward that registers a hook writes it into: each application has its own, as it has its own modules."""


def _hooks(thing: Any) -> list[str]:
    """Return the names of a module's other dicts about hooks that are empty, which is most of all that it holds."""
    if not isinstance(thing, torch.nn.Module):
        return []
    ends = ("_hooks", "_called", "_kwargs")
    return [
        name
        for name, part in vars(thing).items()
        if isinstance(part, dict) and not part and name.endswith(ends) and name not in CALLED
    ]


def _parts_of_container(thing: Any) -> dict[Any, Any]:
    # `dict.items`, as a class of one's own may say something else of them.
    return dict(dict.items(thing)) if isinstance(thing, dict) else dict(enumerate(thing))


def _attributes(thing: Any) -> dict[str, Any]:
    # What a cached property keeps may have been computed from parameters that are others now.
    kind = type(thing)
    cached = functools.cached_property
    own = {k: v for k, v in getattr(thing, "__dict__", {}).items() if not isinstance(getattr(kind, k, None), cached)}
    own |= {name: getattr(thing, name) for name in slots_of(kind) if hasattr(thing, name)}
    return _as_initialised(own) if is_lazy_module(thing) else own


def is_lazy_module(thing: Any) -> bool:
    """Return whether a module waits for its first input to know the shapes of its parameters."""
    return isinstance(thing, LazyModuleMixin) and hasattr(thing, "_initialize_hook")


def _as_initialised(own: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of a lazy module as its first call leaves them: without the hooks that wait for it."""
    own = {name: part for name, part in own.items() if name not in ("_initialize_hook", "_load_hook")}
    for name in ("_forward_pre_hooks", "_load_state_dict_pre_hooks"):
        hooks = own[name].items()
        own[name] = type(own[name])((i, h) for i, h in hooks if not isinstance(_self_of(h), LazyModuleMixin))
    own["_forward_pre_hooks_with_kwargs"] = type(own["_forward_pre_hooks_with_kwargs"])()
    return own


def _self_of(hook: Any) -> Any:
    return getattr(getattr(hook, "hook", hook), "__self__", None)


def slots_of(kind: type) -> list[str]:
    """Return the names of the attributes that objects of a class keep in slots."""
    return [] if kind.__module__ == "builtins" else copyreg._slotnames(kind)  # pyright: ignore


def _is_plain_object(thing: Any) -> bool:
    """Return whether a thing is an object of classes written in Python that keeps all it has as attributes."""
    kind = type(thing)
    if kind is types.SimpleNamespace:
        return True
    if isinstance(thing, _ATOMS) or is_opaque(kind) or not (getattr(thing, "__dict__", None) or slots_of(kind)):
        return False
    return all(base.__flags__ & _HEAP_TYPE for base in kind.__mro__[:-1])
